# shellcheck shell=bash
# Sourced by the launchers: one way to run a command, or only to print it.

dry_run=no

# Prints a command as it could be pasted into a shell, each word quoted where it must be.
show() {
  local words
  printf -v words ' %q' "$@"
  printf '%s\n' "${words# }"
}

# Runs a command after printing it to standard error; with --dry_run prints it only.
run() {
  if [ "$dry_run" = yes ]; then
    show "$@"
  else
    show "$@" >&2
    "$@"
  fi
}

# Ends with exit code 2, as a mistyped command line does.
die() {
  printf 'error: %s\n' "$*" >&2
  exit 2
}

# Prints the comment at the top of a script, which is its help.
help_of() {
  awk 'NR == 1 { next } /^#/ { sub(/^# ?/, ""); print; next } { exit }' "$1"
}

# A whole number from 1.
positive() {
  [[ "$2" =~ ^[1-9][0-9]*$ ]] || die "$1 must be a whole number from 1, not '$2'."
}

# The training's flags must say at least what to train and where to keep it.
training_flags() {
  local word config='' workdir=''
  [ $# -gt 0 ] || die "give the training's flags after --, such as -- --config=... --workdir=..."
  for word in "$@"; do
    case $word in
      --config | --config=*) config=yes ;;
      --workdir | --workdir=*) workdir=yes ;;
    esac
  done
  [ -n "$config" ] || die "the training's flags lack --config=PAGE, such as --config=configs/covid.py."
  [ -n "$workdir" ] || die "the training's flags lack --workdir=DIR, where the run is kept."
}
