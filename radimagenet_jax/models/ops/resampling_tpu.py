"""Bilinear resampling on TPU, where looking pixels up one by one is the slowest thing there is.

What a TPU can look up fast is a column within a register of 8 rows by 128 columns. So each image,
which fits into the chip's fast memory, is resampled in two passes:

1. Down each column: for output row i and input column c the input's row V(i, c), where the output
   row, a slanted line through the input, crosses that column.
2. Along each row: for output pixel (i, j) the columns left and right of its coordinate.

The line rises by less than one row a column. Hence the two rows that a pixel mixes are among rows
V - 1 to V + 2 of either column, four grey values which travel as one 32-bit word. Nothing is
interpolated between the passes: coordinates, weights and the order of the arithmetic are those of
the look-up pixel by pixel, and both agree to rounding.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

# A register's rows and columns.
_ROWS, _LANES = 8, 128
# Both passes compute V and must agree on it: integers, of so many binary places, do.
_PLACES = 16
# Of the 16 MiB of fast memory that a kernel may have, without what the compiler needs besides.
_MEMORY = 12 * 2**20


def fits(images: jax.Array, margin: int) -> bool:
    """Tells whether `bilinear` can resample images of this kind, shared by their devices."""
    count, height, width, _ = images.shape
    tall, wide = _padded(height, width)
    # Input and output are there twice, since the next image is fetched during this one.
    needed = 4 * tall * (2 * wide + 2 * wide + _spread_width(width, margin))
    shared = count % max(1, jax.typeof(images).sharding.mesh.size) == 0
    return images.dtype == jnp.uint8 and shared and needed <= _MEMORY


def bilinear(
    images: jax.Array, matrices: jax.Array, margin: int, *, interpret: bool = False
) -> jax.Array:
    """Resamples images as `resampling.affine_bilinear` does.

    Args:
      images: (N, H, W, C) uint8, which `fits`.
      matrices: (N, 2, 3), from output to input coordinates, turned by no more than 40 degrees.
      margin: How many columns beyond the left and the right border they reach at most.
      interpret: Whether to compute it on any platform, slowly; for tests.

    Returns:
      (N, H, W, C) float32.
    """
    kernel = functools.partial(_resampled, margin=margin, interpret=interpret)
    mesh = jax.typeof(images).sharding.mesh
    if mesh.size > 1:
        # The partitioner cannot look into a kernel: each device is told to take its own images.
        split = jax.sharding.PartitionSpec(mesh.axis_names)
        kernel = jax.shard_map(kernel, mesh=mesh, in_specs=split, out_specs=split, check_vma=False)
    return kernel(images, matrices)


def _padded(height: int, width: int) -> tuple[int, int]:
    """Sizes in whole registers."""
    return -(-height // _ROWS) * _ROWS, -(-width // _LANES) * _LANES


def _spread_width(width: int, margin: int) -> int:
    return -(-(width + 2 * margin + 1) // _LANES) * _LANES


def _resampled(
    images: jax.Array, matrices: jax.Array, *, margin: int, interpret: bool
) -> jax.Array:
    count, height, width, channels = images.shape
    tall, wide = _padded(height, width)
    planes = jnp.moveaxis(images, 3, 1).reshape(count * channels, height, width)
    kernel = functools.partial(_kernel, shape=(height, width, channels), margin=margin)

    def at_image(n: jax.Array, *_: Any) -> tuple[jax.Array | int, ...]:
        return n, 0, 0

    one = pl.BlockSpec((1, tall, wide), at_image)
    out = pl.pallas_call(
        kernel,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(count * channels,),
            in_specs=[one],
            out_specs=one,
            scratch_shapes=[pltpu.VMEM((tall, _spread_width(width, margin)), jnp.int32)],
        ),
        out_shape=jax.ShapeDtypeStruct((count * channels, tall, wide), jnp.float32),
        cost_estimate=pl.CostEstimate(
            flops=26 * count * channels * tall * wide,
            bytes_accessed=2 * 4 * count * channels * tall * wide,
            transcendentals=0,
        ),
        interpret=interpret,
    )(matrices.reshape(-1), _crossings(matrices, margin), _words(planes, tall, wide))
    out = out[:, :height, :width].reshape(count, channels, height, width)
    return jnp.moveaxis(out, 1, 3)


def _words(planes: jax.Array, tall: int, wide: int) -> jax.Array:
    """Packs rows r - 1 to r + 2 into word r: (N, H, W) uint8 -> (N, tall, wide) int32.

    What lies beyond the borders is 0: no pixel gives it any weight.
    """
    _, height, width = planes.shape
    padded = jnp.pad(planes, ((0, 0), (1, tall - height + 2), (0, wide - width)))
    words = sum(
        padded[:, ahead : ahead + tall].astype(jnp.uint32) << 8 * ahead for ahead in range(4)
    )
    return jax.lax.bitcast_convert_type(words, jnp.int32)


def _crossings(matrices: jax.Array, margin: int) -> jax.Array:
    """Where output rows cross columns: V = (p * row + q * padded column + r) >> places.

    Args:
      matrices: (N, 2, 3).
      margin: Of the padded columns.

    Returns:
      (N * 3,) int32: p, q, r of each image.
    """
    (y_row, y_column, y_start), (x_row, x_column, x_start) = matrices.transpose(1, 2, 0)
    slope = y_column / x_column
    terms = [y_row - slope * x_row, slope, y_start - slope * (x_start + margin)]
    return jnp.round(jnp.stack(terms, 1) * 2.0**_PLACES).astype(jnp.int32).reshape(-1)


def _kernel(
    matrices: Any,
    crossings: Any,
    words: Any,
    out: Any,
    spread: Any,
    *,
    shape: tuple[int, int, int],
    margin: int,
) -> None:
    """Resamples one image: words (1, tall, wide) int32 -> out (1, tall, wide) float32.

    `spread` (tall, spread width) int32 has the image with `margin` columns before it, and no fewer
    behind, which repeat the first and the last.
    """
    height, width, channels = shape
    n = jax.lax.div(pl.program_id(0), channels)
    y_row, y_column, y_start, x_row, x_column, x_start = (matrices[6 * n + k] for k in range(6))
    p, q, r = (crossings[3 * n + k] for k in range(3))
    row, lane = (jax.lax.broadcasted_iota(jnp.int32, (_ROWS, _LANES), axis) for axis in (0, 1))
    blocks = out.shape[1] // _ROWS
    out_tiles, spread_tiles = out.shape[2] // _LANES, spread.shape[1] // _LANES

    def crossed(place: jax.Array) -> jax.Array:
        return jnp.clip(place >> _PLACES, 0, height - 1)

    def spread_block(block: jax.Array, _: None) -> None:
        registers = [words[0, _rows(block), _columns(tile)] for tile in range(out_tiles)]
        for tile in range(spread_tiles):
            at = jnp.clip(lane + (tile * _LANES - margin), 0, width - 1)
            spread[_rows(block), _columns(tile)] = _across(registers, at)

    def column_pass(tile: int, start: jax.Array) -> jax.Array:
        begin = start + q * (tile * _LANES)
        at = crossed(p * row + q * lane + begin)
        ends = ((_ROWS - 1) * p, (_LANES - 1) * q)
        first = crossed(begin + sum(jnp.minimum(end, 0) for end in ends))
        last = crossed(begin + sum(jnp.maximum(end, 0) for end in ends))

        def from_block(block: jax.Array, found: jax.Array) -> jax.Array:
            # Not every generation can look up rows: each that may be meant is compared.
            values = spread[_rows(block), _columns(tile)]
            within = at - block * _ROWS
            for one in range(_ROWS):
                found = jnp.where(within == one, values[one : one + 1], found)
            return found

        nothing = jnp.zeros((_ROWS, _LANES), jnp.int32)
        return jax.lax.fori_loop(first >> 3, (last >> 3) + 1, from_block, nothing)

    def row_pass(tile: int, i: jax.Array, start: jax.Array, crossing: list[jax.Array]) -> jax.Array:
        j = (lane + tile * _LANES).astype(jnp.float32)
        y = jnp.clip(y_row * i + y_column * j + y_start, 0.0, height - 1.0)
        x = jnp.clip(x_row * i + x_column * j + x_start, -float(margin), width - 1.0 + margin)
        top, left = y.astype(jnp.int32), jnp.floor(x).astype(jnp.int32)
        dy, dx = y - top.astype(jnp.float32), x - left.astype(jnp.float32)

        def column(at: jax.Array) -> tuple[jax.Array, jax.Array]:
            ahead = top - crossed(p * row + q * at + start) + 1
            word = jax.lax.shift_right_logical(_across(crossing, at), 8 * jnp.clip(ahead, 0, 2))
            return (word & 255).astype(jnp.float32), (word >> 8 & 255).astype(jnp.float32)

        here, below = column(left + margin)
        right, across = column(left + margin + 1)
        upper = here * (1 - dx) + right * dx
        lower = below * (1 - dx) + across * dx
        return upper * (1 - dy) + lower * dy

    def resample_block(block: jax.Array, _: None) -> None:
        start = p * (block * _ROWS) + r
        crossing = [column_pass(tile, start) for tile in range(spread_tiles)]
        i = (row + block * _ROWS).astype(jnp.float32)
        for tile in range(out_tiles):
            out[0, _rows(block), _columns(tile)] = row_pass(tile, i, start, crossing)

    jax.lax.fori_loop(0, blocks, spread_block, None)
    jax.lax.fori_loop(0, blocks, resample_block, None)


def _rows(block: jax.Array) -> Any:
    return pl.ds(pl.multiple_of(block * _ROWS, _ROWS), _ROWS)


def _columns(tile: int) -> slice:
    return slice(tile * _LANES, (tile + 1) * _LANES)


def _across(registers: list[jax.Array], at: jax.Array) -> jax.Array:
    """Looks up columns in registers that lie side by side."""
    within = at & _LANES - 1

    def looked_up(register: jax.Array) -> jax.Array:
        return jnp.take_along_axis(register, within, 1, mode="promise_in_bounds")

    found = looked_up(registers[0])
    for tile, register in enumerate(registers[1:], start=1):
        found = jnp.where(at >= tile * _LANES, looked_up(register), found)
    return found
