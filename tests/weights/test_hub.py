"""Laws of weights on the Hub: pinned, read by our readers alone, explained when they are not had.

A server in this process answers as the Hub does, to the Hub's own client; there is no network.
"""

import contextlib
import hashlib
import json
import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from configs import base, study_base
from radimagenet_jax import convert, load_pretrained, models
from radimagenet_jax.errors import ConfigError, WeightsError
from radimagenet_jax.studies import plan
from radimagenet_jax.training import config as config_pages
from radimagenet_jax.training import initialise, network
from radimagenet_jax.weights import hub, native
from radimagenet_jax.weights.contract import Contract

constants = pytest.importorskip(
    "huggingface_hub.constants", reason="the extra 'hub' is not installed"
)

NAME = "lab/net"
FIRST, SECOND = "1" * 40, "2" * 40
CARD = "---\nlicense: cc-by-nc-4.0\n---\n# A network\n"
TOKEN = "hf_secretsecretsecretsecret"


@dataclass
class Server:
    """What the Hub has: files by commit, commits by name, and how it refuses."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    status: int = 0
    asked: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)

    def handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                server.asked.append(f"{self.command} {self.path}")
                server.tokens.add(self.headers.get("Authorization", ""))
                self._answer(*server.answer(self.path.split("?")[0]))

            def do_HEAD(self):
                self.do_GET()

            def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            def log_message(self, *arguments):
                pass

        return Handler

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        if self.status:
            return self.status, {}, b"{}"
        api = re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path)
        file = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        found = api or file
        if not found or found[1] != NAME:
            return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
        commit = self.names.get(found[2] or "main", found[2])
        if commit not in self.commits:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
        files = self.commits[commit]
        if api:
            listed = [{"rfilename": name} for name in files]
            record = {"id": NAME, "modelId": NAME, "sha": commit, "siblings": listed}
            return 200, {"Content-Type": "application/json"}, json.dumps(record).encode()
        if self.gated:
            return 403, {"X-Error-Code": "GatedRepo"}, b"{}"
        body = files.get(file[3])
        if body is None:
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, b"{}"
        etag = f'"{hashlib.sha256(body).hexdigest()}"'
        return 200, {"ETag": etag, "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}, body


@pytest.fixture
def server(tmp_path, monkeypatch) -> Iterator[Server]:
    state = Server()
    http = ThreadingHTTPServer(("127.0.0.1", 0), state.handler())
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    endpoint = f"http://127.0.0.1:{http.server_address[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    try:
        yield state
    finally:
        http.shutdown()
        http.server_close()


@contextlib.contextmanager
def out_of_reach(server: Server, monkeypatch, how: str):
    """The Hub as one without a network, or one that has switched it off, meets it."""
    with monkeypatch.context() as patch:
        if how == "offline":
            patch.setattr(constants, "HF_HUB_OFFLINE", True)
        elif how == "down":
            patch.setattr(server, "status", 503)
        else:
            patch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
            template = "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
            patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """DenseNet121, the smallest, with random weights in our own layout."""
    variables = initialise.scratch(models.create("densenet121"), 32, 0, "zeros")
    contract = Contract("densenet121", "", "torch", "RGB", "a test", "none", "0" * 64)
    path = tmp_path_factory.mktemp("weights") / "densenet121"
    native.write(path, variables, contract)
    return path


@pytest.fixture
def ours(server, folder) -> Server:
    """A repository in our own layout with a model card; `v1` is its first commit."""
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    server.commits[FIRST] = {**files, "README.md": CARD.encode()}
    server.commits[SECOND] = {**files, "README.md": b"# No metadata\n", "extra.h5": b"not read"}
    server.names |= {"main": SECOND, "v1": FIRST}
    return server


def test_a_repository_in_our_layout_loads_pinned_with_its_licence(ours, folder, tmp_path):
    loaded = load_pretrained(f"hf://{NAME}@v1")
    plain = load_pretrained(folder)
    assert loaded.contract.architecture == "densenet121"
    assert loaded.contract.sha256 == plain.contract.sha256
    assert loaded.contract.origin == f"a test; from hf://{NAME}@{FIRST}"
    assert loaded.contract.licence.startswith("On the Hub: cc-by-nc-4.0. ")
    told = "\n".join(loaded.report.lines())
    assert f"hf://{NAME}@v1 is pinned at {FIRST}; give hf://{NAME}@{FIRST} to repeat it." in told
    assert "its model card states the licence 'cc-by-nc-4.0'" in told
    # Nothing but the library's cache was written, and nothing else was brought.
    assert {path.name for path in tmp_path.iterdir()} == {"cache"}
    brought = {line.rpartition("/")[2] for line in ours.asked if line.startswith(f"GET /{NAME}/")}
    assert brought == {"README.md", native.CONTRACT, native.TENSORS, native.USAGE}
    assert not any(TOKEN in line for line in told.splitlines())
    assert f"Bearer {TOKEN}" in ours.tokens


def test_without_a_revision_the_present_commit_is_taken_and_told(ours):
    fetched = hub.fetch(f"hf://{NAME}")
    assert fetched.address == f"hf://{NAME}@{SECOND}"
    assert f"pinned at {SECOND}" in fetched.notes[0]
    assert "no licence is stated" in fetched.notes[-1]
    repeated = hub.fetch(fetched.address)
    assert repeated.path == fetched.path
    assert not any("pinned" in note for note in repeated.notes)


def test_a_path_that_was_made_of_an_address_is_one(ours):
    assert hub.is_address(Path(f"hf://{NAME}@v1"))
    assert hub.fetch(Path(f"hf://{NAME}@v1")).address == f"hf://{NAME}@{FIRST}"
    assert not hub.is_address("weights/hf/net")
    assert not hub.is_address("/hf://lab/net")


@pytest.mark.parametrize("how", ["offline", "down", "no network"])
@pytest.mark.parametrize("revision", ["", "@v1", f"@{FIRST}"])
def test_what_is_in_the_cache_is_used_where_the_hub_is_out_of_reach(
    how, revision, ours, monkeypatch
):
    known = hub.fetch(f"hf://{NAME}{revision}")
    with out_of_reach(ours, monkeypatch, how):
        again = hub.fetch(f"hf://{NAME}{revision}")
        # What else the repository has is not known now.
        with pytest.raises(WeightsError, match="out of reach"):
            hub.fetch(f"hf://{NAME}{revision or '@main'}/extra.h5")
    assert again == known


@pytest.mark.parametrize("how", ["offline", "down", "no network"])
@pytest.mark.parametrize("revision", ["", "@v1", f"@{FIRST}"])
def test_with_nothing_in_the_cache_it_is_said_that_the_hub_is_out_of_reach(
    how, revision, ours, monkeypatch
):
    with out_of_reach(ours, monkeypatch, how), pytest.raises(WeightsError) as caught:
        hub.fetch(f"hf://{NAME}{revision}")
    assert "out of reach" in str(caught.value)
    _is_one_sentence(caught.value)


def _is_one_sentence(error: WeightsError) -> None:
    text = str(error)
    assert "\n" not in text
    assert "http" not in text
    assert TOKEN not in text
    assert text.endswith(".")


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("hf://lab", "write hf://OWNER/NAME"),
        ("hf://lab/net@", "write hf://OWNER/NAME"),
        ("hf://lab/..", "write hf://OWNER/NAME"),
        ("hf://lab/a--b", "write hf://OWNER/NAME"),
        ("hf://-lab/net", "write hf://OWNER/NAME"),
        ("hf://lab/net@v1/../../secret.h5", "names no file"),
        ("hf://lab/net@v1/a//b.h5", "names no file"),
        ("hf://lab/net@v1/a\\b.h5", "names no file"),
        ("hf://lab/net@v1/a\x1b[31m.h5", "names no file"),
        ("hf://lab/other", "hf://lab/other is not on the Hub, or is private"),
        ("hf://lab/net@v9", "hf://lab/net has no revision 'v9'"),
        ("hf://lab/net@" + "9" * 40, "has no revision '99999"),
        ("hf://lab/net@main/no.h5", "no file 'no.h5'; its weight files are extra.h5, model.s"),
    ],
)
def test_an_address_of_nothing_is_one_sentence(address, says, ours):
    with pytest.raises(WeightsError) as caught:
        hub.fetch(address)
    assert says in str(caught.value)
    _is_one_sentence(caught.value)
    if "OWNER" in says or "names no file" in says:
        assert not ours.asked  # nothing was looked for


def test_a_gated_repository_says_how_to_be_let_in(ours):
    ours.gated = True
    with pytest.raises(WeightsError, match="is gated: ask for access") as caught:
        hub.fetch(f"hf://{NAME}")
    _is_one_sentence(caught.value)


def test_another_answer_is_told_by_its_number(ours):
    ours.status = 418
    with pytest.raises(WeightsError, match="the Hub answered 418") as caught:
        hub.fetch(f"hf://{NAME}")
    _is_one_sentence(caught.value)


def test_of_several_files_one_has_to_be_named_and_none_is_said(server):
    server.names["main"] = FIRST
    server.commits[FIRST] = {"b.pt": b"", "a/c.h5": b"", "config.json": b"", "../d.h5": b""}
    with pytest.raises(WeightsError, match=r"several weight files; name one .*: a/c\.h5, b\.pt\."):
        hub.fetch(f"hf://{NAME}")
    named = hub.fetch(f"hf://{NAME}@main/a/c.h5")
    assert named.address == f"hf://{NAME}@{FIRST}/a/c.h5"
    assert f"give {named.address} to repeat it" in named.notes[0]
    server.commits[FIRST] = {"config.json": b"{}"}
    with pytest.raises(WeightsError, match="has no weight file"):
        hub.fetch(f"hf://{NAME}")


def test_a_pickle_from_the_hub_meets_our_reader_alone(server, tmp_path):
    server.names["main"] = FIRST
    ran = tmp_path / "ran"
    evil = b"cos\nsystem\n(S'touch " + str(ran).encode() + b"'\ntR."
    server.commits[FIRST] = {"pytorch_model.bin": b"\x80\x02" + evil}
    with pytest.raises(WeightsError, match="pickle"):
        load_pretrained(f"hf://{NAME}")
    assert not ran.exists()


def test_a_folder_within_a_repository_and_a_single_file_load_too(server, folder):
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    server.names["main"] = FIRST
    server.commits[FIRST] = {f"nets/densenet121/{name}": body for name, body in files.items()}
    loaded = load_pretrained(f"hf://{NAME}@main/nets/densenet121")
    assert loaded.contract.origin.endswith(f"from hf://{NAME}@{FIRST}/nets/densenet121")
    fetched = hub.fetch(f"hf://{NAME}@main/nets/densenet121/{native.TENSORS}")
    assert fetched.path.read_bytes() == files[native.TENSORS]


def test_a_file_of_no_contract_needs_its_input_said_whatever_its_name(server, released):
    server.names["main"] = FIRST
    server.commits[FIRST] = {released.name: released.read_bytes()}
    with pytest.raises(WeightsError, match="no contract, and only its name or form") as caught:
        load_pretrained(f"hf://{NAME}")
    _is_one_sentence(caught.value)
    loaded = load_pretrained(f"hf://{NAME}", preprocessing="torch")
    assert loaded.contract.preprocessing == "torch"


def test_a_model_card_that_is_none_changes_nothing_but_what_is_said(ours):
    ours.commits[FIRST]["README.md"] = b"---\nlicense: [\n---\n"
    fetched = hub.fetch(f"hf://{NAME}@v1")
    assert fetched.licence == ""
    assert any("model card cannot be read" in note for note in fetched.notes)


def test_without_the_extra_it_is_said_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(WeightsError, match=r"pip install 'radimagenet-jax\[hub\]'") as caught:
        hub.fetch(f"hf://{NAME}")
    assert "\n" not in str(caught.value)


def test_convert_and_a_study_take_an_address(ours, tmp_path, capsys):
    assert convert.main([f"--weights=hf://{NAME}@v1", f"--output={tmp_path / 'mine'}"]) == 0
    kept = native.read_contract(tmp_path / "mine")
    assert f"hf://{NAME}@{FIRST}" in kept.origin
    config = study_base.get_config("breast")
    config.study.models = ("densenet121",)
    config.study.inits = (f"lab=hf://{NAME}@v1",)
    with pytest.raises(ConfigError, match="names no commit"):
        plan.validate(config)
    config.study.inits = (f"lab=hf://{NAME}@{FIRST}",)
    plan.validate(config)
    config.study.preprocessing = ("native",)
    plan.check_weights(config)
    config.study.models = ("resnet50",)
    with pytest.raises(ConfigError, match=f"{FIRST} cannot be the weights 'lab' for resnet"):
        plan.check_weights(config)


def test_a_run_begins_from_an_address_and_is_the_same_run_in_another_folder(
    ours, tmp_path, monkeypatch
):
    config = base.get_config("breast")
    config.model, config.init = "densenet121", f"hf://{NAME}@v1"
    config.preprocessing = "native"
    contract = network.build(config, ("no", "yes")).contract
    assert contract.origin == f"a test; from hf://{NAME}@{FIRST}"
    assert contract.labels == ("no", "yes")
    kept = json.loads(config_pages.to_json(config))
    monkeypatch.chdir(tmp_path)
    assert config_pages.differences(config, kept) == []
