"""The flow transformer: the velocity of latents on their way from noise to music, and its sampler.

A diffusion transformer with adaptive layer norm shared by all blocks (Peebles and Xie, "DiT", 2023;
Chen et al., "PixArt-alpha", 2023), trained by flow matching (Lipman et al., 2023). Names of
submodules are those of the published checkpoint.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from codec.mucodec.config import MuCodecConfig
from codec.mucodec.float8 import Float8Product
from codec.sampling import integrate

__all__ = ["Flow", "FlowTransformer", "sample", "velocity_field"]

Flow = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""What a :class:`FlowTransformer` computes, compiled or not."""
_SIGMA_MIN = 1e-4
_BASE_SIZE, _INTERPOLATION = 192, 6
"""Scale of the position table: 32 units over the trained window, in time as in frequency."""


def position_table(width: int, rows: int, columns: int) -> Tensor:
    """Sines and cosines of patch positions, float32 ``[rows * columns, width]``.

    The first half of the width tells the column (frequency), the second the row (time).
    """
    half = width // 2
    rates = 1 / 10_000 ** (torch.arange(half // 2, dtype=torch.float64) / (half / 2))

    def axis(length: int) -> Tensor:
        place = torch.arange(length, dtype=torch.float64) / (length / _BASE_SIZE) / _INTERPOLATION
        angles = place.unsqueeze(1) * rates
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    row = axis(rows).unsqueeze(1).expand(-1, columns, -1)
    column = axis(columns).unsqueeze(0).expand(rows, -1, -1)
    return torch.cat([column, row], dim=-1).reshape(rows * columns, width).float()


class Product(nn.Linear):
    """A linear layer that takes any type and computes in that of its weights."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.to(self.weight.dtype), self.weight, self.bias)


class PatchEmbedding(nn.Module):
    def __init__(self, config: MuCodecConfig) -> None:
        super().__init__()
        c = config
        self.proj = nn.Conv2d(3 * c.condition_channels, c.flow_width, c.patch, stride=c.patch)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.proj(x.to(self.proj.weight.dtype)).flatten(2).transpose(1, 2)
        return out


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = Product(width, width)
        self.to_k = Product(width, width)
        self.to_v = Product(width, width)
        self.to_qkv: nn.Module | None = None
        self.to_out = nn.ModuleList([Product(width, width)])

    def prepare(self) -> None:
        """Make one product of the three that the checkpoint has for queries, keys and values."""
        if self.to_qkv is not None:
            return
        three = (self.to_q, self.to_k, self.to_v)
        with torch.device("meta"):
            one = Product(self.to_q.in_features, sum(part.out_features for part in three))
        one.weight = nn.Parameter(torch.cat([part.weight for part in three]), False)
        one.bias = nn.Parameter(torch.cat([part.bias for part in three]), False)
        self.to_qkv = one
        del self.to_q, self.to_k, self.to_v

    def forward(self, x: Tensor) -> Tensor:
        if self.to_qkv is None:
            qkv = torch.cat([self.to_q(x), self.to_k(x), self.to_v(x)], dim=-1)
        else:
            qkv = self.to_qkv(x)
        # [batch, patches, 3, heads, width of a head]
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)
        out: Tensor = self.to_out[0](y)
        return out


class Gelu(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = Product(width, inner)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.proj(x), approximate="tanh")


class FeedForward(nn.Module):
    def __init__(self, width: int, expansion: int) -> None:
        super().__init__()
        # The gap is dropout's place in the checkpoint's numbering.
        self.net = nn.ModuleDict(
            {"0": Gelu(width, expansion * width), "2": Product(expansion * width, width)}
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net["2"](self.net["0"](x))
        return out


def _replace_products(module: nn.Module) -> None:
    """Every :class:`Product` inside by one in eight bits."""
    for name, child in module.named_children():
        if isinstance(child, Product):
            setattr(module, name, Float8Product(child))
        else:
            _replace_products(child)


class TransformerBlock(nn.Module):
    def __init__(self, config: MuCodecConfig) -> None:
        super().__init__()
        width = config.flow_width
        self.scale_shift_table = nn.Parameter(torch.zeros(6, width))
        self.norm1 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.attn1 = Attention(width, config.flow_heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.ff = FeedForward(width, config.flow_expansion)

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """The stream of residuals behind this block.

        It is float32, and what is added up stays so; only products are in half precision.

        Args:
            x: float32 ``[batch, patches, width]``.
            modulation: float32 ``[batch, 6, width]``, from the time.
        """
        parts = (self.scale_shift_table + modulation).unsqueeze(2).unbind(dim=1)
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = parts
        x = x + gate_a * self.attn1(self.norm1(x) * (1 + scale_a) + shift_a)
        return x + gate_f * self.ff(self.norm2(x) * (1 + scale_f) + shift_f)


class TimestepEmbedder(nn.Module):
    def __init__(self, config: MuCodecConfig) -> None:
        super().__init__()
        self.dims = config.flow_time_dims
        self.linear_1 = nn.Linear(self.dims, config.flow_width)
        self.linear_2 = nn.Linear(config.flow_width, config.flow_width)

    def forward(self, t: Tensor) -> Tensor:
        half = self.dims // 2
        rates = torch.exp(
            -math.log(10_000) * torch.arange(half, device=t.device, dtype=torch.float32) / half
        )
        angles = t.float().unsqueeze(1) * 1000 * rates
        waves = torch.cat([angles.cos(), angles.sin()], dim=1)
        out: Tensor = self.linear_2(F.silu(self.linear_1(waves)))
        return out


class TimeModulation(nn.Module):
    """One modulation for all blocks, each of which adds a table of its own."""

    def __init__(self, config: MuCodecConfig) -> None:
        super().__init__()
        self.emb = nn.ModuleDict({"timestep_embedder": TimestepEmbedder(config)})
        self.linear = nn.Linear(config.flow_width, 6 * config.flow_width)

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        embedded = self.emb["timestep_embedder"](t)
        return self.linear(F.silu(embedded)), embedded


class FlowTransformer(nn.Module):
    """Velocity of latents ``[batch, channels, frames, bins]`` at times ``[batch]``."""

    def __init__(self, config: MuCodecConfig) -> None:
        super().__init__()
        self.config = c = config
        self.pos_embed = PatchEmbedding(c)
        self.transformer_blocks = nn.ModuleList(TransformerBlock(c) for _ in range(c.flow_layers))
        self.adaln_single = TimeModulation(c)
        self.norm_out = nn.LayerNorm(c.flow_width, eps=1e-6, elementwise_affine=False)
        self.scale_shift_table = nn.Parameter(torch.zeros(2, c.flow_width))
        self.proj_out = Product(c.flow_width, c.patch**2 * c.condition_channels)
        self.columns = c.latent_bins // c.patch
        # The trained window's table; a shorter window has its first rows.
        self.register_buffer("positions", self.table(c), persistent=False)

    positions: Tensor

    @staticmethod
    def table(config: MuCodecConfig) -> Tensor:
        """Position table of the trained window, ``[patches, width]``."""
        c = config
        return position_table(c.flow_width, c.trained_frames // c.patch, c.latent_bins // c.patch)

    def prepare(self, dtype: torch.dtype, float8: bool = False) -> None:
        """Fuse queries, keys and values, and have products computed in ``dtype``.

        The stream of residuals that runs through the blocks, its norms and all modulation stay in
        float32: they cost next to nothing, and rounding adds up in them.

        Args:
            float8: the blocks' products have eight bits.
        """
        for block in self.transformer_blocks:
            assert isinstance(block, TransformerBlock)
            block.attn1.prepare()
            if float8:
                _replace_products(block)
        for module in self.modules():
            if isinstance(module, (Product, PatchEmbedding)):
                module.to(dtype)

    def forward(
        self,
        x: Tensor,
        given: Tensor,
        condition: Tensor,
        t: Tensor,
        *,
        block: Callable[[TransformerBlock, Tensor, Tensor], Tensor] = TransformerBlock.__call__,
    ) -> Tensor:
        """The velocity, of ``x``'s shape and type.

        Frames must be even in number and at most as many as in the trained window. What follows
        (guidance amplifies differences) is not to round further, hence the type.

        Args:
            x: noisy latents, ``[batch, channels, frames, bins]``.
            given: in-context latents, else 0, of the same shape.
            condition: of the same shape.
            t: times, ``[batch]``.
            block: what runs a block, so that one compiled function serves all of them.
        """
        c = self.config
        rows = x.shape[2] // c.patch
        y = self.pos_embed(torch.cat([x, given, condition], dim=1))
        y = y + self.positions[: rows * self.columns]
        modulation, embedded = self.adaln_single(t)
        modulation = modulation.unflatten(1, (6, -1))
        for layer in self.transformer_blocks:
            assert isinstance(layer, TransformerBlock)
            y = block(layer, y, modulation)
        shift, scale = (self.scale_shift_table + embedded.unsqueeze(1)).unsqueeze(2).unbind(dim=1)
        y = self.proj_out(self.norm_out(y) * (1 + scale) + shift)
        y = y.unflatten(2, (c.patch, c.patch, -1)).unflatten(1, (rows, self.columns))
        # [batch, rows, columns, row in patch, column in patch, channels]
        return y.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3).to(x.dtype)


def velocity_field(
    flow: Flow,
    given: Tensor,
    condition: Tensor,
    guidance: float,
    interval: tuple[float, float] | None = None,
) -> Callable[[Tensor, float], Tensor]:
    """Guided velocity as a function of latents and time.

    The unconditional half has its condition zeroed and its in-context latents kept; both halves
    run as one batch.

    Args:
        guidance: 1 takes the conditional half alone.
        interval: at times outside it as well (Kynkäänniemi et al., "Applying Guidance in a Limited
            Interval", 2024).
    """

    def plain(x: Tensor, t: float) -> Tensor:
        return flow(x, given, condition, x.new_full((len(x),), t))

    if guidance == 1.0:
        return plain
    low, high = interval or (0.0, 1.0)
    both_given = torch.cat([given, given])
    both = torch.cat([torch.zeros_like(condition), condition])

    def guided(x: Tensor, t: float) -> Tensor:
        if not low <= t <= high:
            return plain(x, t)
        times = x.new_full((2 * len(x),), t)
        free, bound = flow(torch.cat([x, x]), both_given, both, times).chunk(2)
        return free + guidance * (bound - free)

    return guided


def sample(
    flow: Flow,
    noise: Tensor,
    known: Tensor | None,
    condition: Tensor,
    *,
    guidance: float,
    times: Sequence[float],
    interval: tuple[float, float] | None = None,
    solver: str = "euler",
) -> Tensor:
    """Normalised latents from noise and condition, all ``[batch, channels, frames, bins]``.

    Args:
        known: in-context latents of the first n frames, ``[batch, channels, n, bins]``. Before each
            step they are put on their own straight path, and at the end they are put back as they
            are.
        interval: times between which guidance is applied.
    """
    given = torch.zeros_like(noise)
    field = velocity_field(flow, given, condition, guidance, interval)
    if known is None:
        return integrate(field, noise, times, solver)
    frames = known.shape[2]
    given[:, :, :frames] = known
    start = noise[:, :, :frames]

    def put_back(x: Tensor, t: float) -> Tensor:
        path = (1 - (1 - _SIGMA_MIN) * t) * start + t * known
        return torch.cat([path, x[:, :, frames:]], dim=2)

    x = integrate(field, noise, times, solver, put_back)
    return torch.cat([known, x[:, :, frames:]], dim=2)
