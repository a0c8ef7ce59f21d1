"""Trajectory attention: follow every token through the frames, then attend to the points of its path.

MaXTron, arXiv 2311.18537v1, section 3.2, equations 2 to 4 (after Patrick et al., arXiv 2106.05392). The code of
TACJu/MaXTron adds details that the equations leave out, and this file keeps them: heads, the scale 1/sqrt(d) in both
steps, biases, and a second query that is projected from the trajectory point in the token's own frame.

Letters here: b sequences, t frames, s positions of a frame, n = (t s) tokens, heads, d channels of one head.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import einsum, rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

# Number of elements in the intermediates of one chunk. On a CPU they take 16 MB of float32, which stay in the cache and
# do not make the heap grow and shrink with every chunk. On a GPU one launch covers everything but very long videos.
_CHUNK_ELEMENTS_CPU = 4 << 20
_CHUNK_ELEMENTS_GPU = 256 << 20

# In longer clips the trajectory points take most of the memory, so training computes them again for the gradient.
_FRAMES_KEPT = 32

# Below this number of scores the plain formula is faster, because it takes fewer steps (tiny networks, stride 32).
_PLAIN_SCORES = 1 << 17


class Projections(NamedTuple):
    """The linear maps of the second step: weights `out in`, biases `out`."""

    query_weight: Tensor    # c c
    query_bias: Tensor      # c
    path_weight: Tensor     # (two c) c   keys, then values
    path_bias: Tensor       # (two c)


def plain_trajectory_attention(
    q: Tensor, k: Tensor, v: Tensor, *, projections: Projections, heads: int, frames: int, dropout: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """The formula as written: every trajectory point is projected, which costs `n t c^2`.

    It serves small inputs, and calls that ask for the attention maps.

    q, k, v: b (t s) c, projected. Returns z `b (t s) c`, the attention over positions `b heads (t s) t s` (sums to one
    over s) and the attention over frames `b heads (t s) t` (sums to one over t).
    """
    scale = (q.shape[-1] // heads) ** -0.5
    q = rearrange(q, "b n (heads d) -> b heads n d", heads=heads)
    k, v = (rearrange(x, "b (t s) (heads d) -> b heads t s d", heads=heads, t=frames) for x in (k, v))
    space = _softmax(einsum(q * scale, k, "b heads n d, b heads t s d -> b heads n t s"))
    points = einsum(F.dropout(space, dropout).to(v.dtype), v, "b heads n t s, b heads t s d -> b n t heads d")
    points = rearrange(points, "b n t heads d -> b n t (heads d)")

    own = torch.diagonal(rearrange(points, "b (t s) t2 c -> b s t t2 c", t=frames), dim1=2, dim2=3)   # b s c t
    own = rearrange(own, "b s c t -> b (t s) c")
    q = rearrange(F.linear(own, *projections[:2]), "b n (heads d) -> b n heads d", heads=heads)
    k, v = rearrange(F.linear(points, *projections[2:]), "b n t (two heads d) -> two b n t heads d", two=2, heads=heads)
    time = _softmax(einsum(q * scale, k, "b n heads d, b n t heads d -> b heads n t"))
    z = einsum(time.to(v.dtype), v, "b heads n t, b n t heads d -> b n heads d")
    return rearrange(z, "b n heads d -> b n (heads d)"), space, time


def trajectory_attention(
    q: Tensor, k: Tensor, v: Tensor, *, projections: Projections, heads: int, frames: int, dropout: float = 0.0,
) -> Tensor:
    """Equal to `plain_trajectory_attention`, without its large tensors. q, k, v and the result: b (t s) c.

    No score matrix is kept, no trajectory point is projected (`_PoolPaths`), and queries are processed in chunks whose
    intermediates fit the cache. Training keeps one copy of the trajectory points, `b (t s) t c`, and in long clips not
    even that.
    """
    if len(q) * heads * q.shape[1] ** 2 <= _PLAIN_SCORES:
        return plain_trajectory_attention(q, k, v, projections=projections, heads=heads, frames=frames,
                                          dropout=dropout)[0]
    q, k, v = (rearrange(x, "b (t s) (heads d) -> t b heads s d", heads=heads, t=frames) for x in (q, k, v))
    pool = tuple(x.to(v.dtype) for x in projections)
    batch, positions = _chunk_sizes(q)
    step = _follow_and_pool
    if frames > _FRAMES_KEPT and torch.is_grad_enabled():
        step = partial(checkpoint, step, use_reentrant=False, preserve_rng_state=dropout > 0, determinism_check="none")
    clips = []
    for parts in zip(q.split(batch, dim=1), k.split(batch, dim=1), v.split(batch, dim=1)):
        q_frames, k_frames, v_frames = (part.unbind(0) for part in parts)          # of each: b heads s d
        rows = [step(chunk, k_frames, v_frames, pool, frame=frame, dropout=dropout)
                for frame, q_frame in enumerate(q_frames) for chunk in q_frame.split(positions, dim=2)]
        clips.append(torch.cat(rows, dim=1))
    return torch.cat(clips)


def _softmax(scores: Tensor) -> Tensor:
    """Softmax over the last axis, in float32 or better."""
    return scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32))


def _chunk_sizes(q: Tensor) -> tuple[int, int]:
    """The number of sequences, and of positions of one frame, that are processed together."""
    frames, _, heads, positions, depth = q.shape
    elements = _CHUNK_ELEMENTS_CPU if q.device.type == "cpu" else _CHUNK_ELEMENTS_GPU
    rows = max(1, elements // ((frames + 2 * heads) * heads * depth))
    return max(1, rows // positions), min(rows, positions)


def _follow_and_pool(
    q: Tensor, k: Sequence[Tensor], v: Sequence[Tensor], pool: tuple[Tensor, ...], *, frame: int, dropout: float,
) -> Tensor:
    """Queries b heads s d of one frame; k, v of each frame: b heads s' d. Returns b s c."""
    points = [rearrange(F.scaled_dot_product_attention(q, *one, dropout_p=dropout), "b heads s d -> (b s) (heads d)")
              for one in zip(k, v)]
    z = _PoolPaths.apply(frame, q.shape[1], *pool, *points)
    return rearrange(z, "(b s) c -> b s c", b=len(q))


class _PoolPaths(torch.autograd.Function):
    """The second step: attention over the trajectory points of each token, from t tensors `n c` to one.

    Instead of projecting n t points to keys and values, the key weight is moved to the query and the value weight to
    the result: <q, W_k y + b_k> = <W_k^T q, y> + const, and the constant leaves the softmax unchanged;
    sum_t a_t (W_v y_t + b_v) = W_v (sum_t a_t y_t) + b_v. This is exact and takes `t` times less work.
    The points stay where the first step left them. The backward pass recomputes the two tensors of size n heads c,
    which would be larger than the points in short clips.
    """

    @staticmethod
    def forward(ctx, frame, heads, query_weight, query_bias, path_weight, path_bias, *points):
        c = points[0].shape[-1]
        key_weight, value_weight = rearrange(path_weight, "(two heads d) c -> two heads d c", two=2, heads=heads)
        q = F.linear(points[frame], query_weight, query_bias) * (c // heads) ** -0.5
        q = rearrange(q, "n (heads d) -> heads n d", heads=heads)
        paths = torch.stack(points, dim=1)                                                     # n t c
        moved = rearrange(torch.bmm(q, key_weight), "heads n c -> n heads c")
        attention = _softmax(torch.bmm(moved, paths.mT)).to(paths.dtype)                       # n heads t
        pooled = rearrange(torch.bmm(attention, paths), "n heads c -> heads n c")
        z = rearrange(torch.bmm(pooled, value_weight.mT), "heads n d -> n (heads d)") + path_bias[c:]
        ctx.save_for_backward(q, attention, query_weight, path_weight, *points)
        ctx.frame = frame
        return z

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        q, attention, query_weight, path_weight, *points = ctx.saved_tensors
        heads = len(q)
        c = points[0].shape[-1]
        key_weight, value_weight = rearrange(path_weight, "(two heads d) c -> two heads d c", two=2, heads=heads)
        paths = torch.stack(points, dim=1)                                                     # n t c
        grad_heads = rearrange(grad, "n (heads d) -> heads n d", heads=heads)

        pooled = rearrange(torch.bmm(attention, paths), "n heads c -> heads n c")
        grad_value_weight = torch.bmm(grad_heads.mT, pooled)
        grad_pooled = rearrange(torch.bmm(grad_heads, value_weight), "heads n c -> n heads c")
        grad_attention = torch.bmm(grad_pooled, paths.mT)
        weighted = attention * grad_attention
        grad_scores = weighted - attention * weighted.sum(-1, keepdim=True)                    # n heads t

        moved = rearrange(torch.bmm(q, key_weight), "heads n c -> n heads c")
        grad_points = torch.baddbmm(torch.bmm(attention.mT, grad_pooled), grad_scores.mT, moved)     # n t c
        grad_moved = rearrange(torch.bmm(grad_scores, paths), "n heads c -> heads n c")
        grad_key_weight = torch.bmm(q.mT, grad_moved)
        grad_q = rearrange(torch.bmm(grad_moved, key_weight.mT), "heads n d -> n (heads d)") * (c // heads) ** -0.5
        grad_points[:, ctx.frame].addmm_(grad_q, query_weight)

        grad_path_weight = rearrange([grad_key_weight, grad_value_weight], "two heads d c -> (two heads d) c")
        grad_path_bias = F.pad(grad.sum(0), (c, 0))
        return (None, None, grad_q.mT @ points[ctx.frame], grad_q.sum(0), grad_path_weight, grad_path_bias,
                *grad_points.unbind(1))


class TrajectoryAttention(nn.Module):
    """Trajectory attention with its projections, without residual and norm.

    fused_qkv: one linear map gives query, key and value, as between the queries of all clips (section 3.3); otherwise
    there are three, as inside a clip. Weight names are those of the official code.
    """

    def __init__(self, dim: int, heads: int, *, fused_qkv: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"trajectory attention of {dim} channels cannot have {heads} heads; "
                             "choose a number of heads that divides the channels")
        self.heads = heads
        self.dropout = dropout
        self.fused_qkv = fused_qkv
        if fused_qkv:
            self.qkv = nn.Linear(dim, 3 * dim)
        else:
            self.q = nn.Linear(dim, dim)
            self.k = nn.Linear(dim, dim)
            self.v = nn.Linear(dim, dim)
        self.proj_q = nn.Linear(dim, dim)
        self.proj_kv = nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)
        for linear in self.children():
            nn.init.xavier_uniform_(linear.weight)

    def forward(
        self, query: Tensor, key: Tensor | None = None, value: Tensor | None = None, *, frames: int,
        attention: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """query, key, value: b (t s) c, frame by frame; key and value default to query. Returns b (t s) c.

        attention: a dict is filled with the maps "space" (b heads (t s) t s) and "time" (b heads (t s) t), and the
        result then comes from the plain formula. Raises ValueError when the tokens do not divide into frames.
        """
        if query.shape[1] % frames:
            raise ValueError(f"{query.shape[1]} tokens do not divide into {frames} frames; give every frame the same "
                             "number of tokens, frame by frame")
        if self.fused_qkv:
            if key is not None or value is not None:
                raise ValueError("a fused projection takes the query alone; build the layer with fused_qkv=False")
            q, k, v = self.qkv(query).chunk(3, dim=-1)
        else:
            q = self.q(query)
            k = self.k(query if key is None else key)
            v = self.v(query if value is None else value)
        options = {
            "projections": Projections(self.proj_q.weight, self.proj_q.bias, self.proj_kv.weight, self.proj_kv.bias),
            "heads": self.heads, "frames": frames, "dropout": self.dropout if self.training else 0.0,
        }
        if attention is None:
            return self.proj(trajectory_attention(q, k, v, **options))
        z, attention["space"], attention["time"] = plain_trajectory_attention(q, k, v, **options)
        return self.proj(z)
