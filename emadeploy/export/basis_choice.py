"""How many kernels each task needs: run the network on calibration frames, and measure the attended maps.

Shape suffixes: T tasks, C channels of a task, H x W rows and columns of the map, P = H * W pixels, K = 9 T parts.

The attended map of task s is a sum of K parts, one per task t and kernel r of its full basis (`basis.Decomposition`),
and a term of the bias that no basis touches:

    O_s = sum_t sum_r part_s[t,r] + bias part,      part_s[t,r][:,i] = mix[i,t,r] * (V_s respond(F_t, r)^T) F_t[:,i]

To keep R_t kernels of task t is to leave out the parts beyond them. The error of O_s is the length of their sum, so
the K x K inner products of the parts, summed over frames, say what every choice of ranks costs in every map: frames
pass once, and the choice needs no network.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emadeploy.contract.errors import CalibrationError, ExportError
from emadeploy.contract.preprocess import Float32
from emadeploy.export.basis import FULL_RANK, Decomposition, Kernels, check_ranks, decompose, second_moments
from emadeploy.nets.affinity import normalise, respond
from emadeploy.nets.ctal import CrossTaskAttention
from emadeploy.nets.network import Network

DEFAULT_BOUND = 0.02
"""Largest relative error of an attended map, L2 over all pixels of the frames held aside."""

Feats = dict[str, Tensor]
#: Called with the number of frames seen.
Progress = Callable[[int], None]

_HELD_ASIDE = 4  # one frame in four measures, the others make the statistics
_PIXELS_AT_ONCE = 4096


@dataclass(frozen=True, eq=False)
class Basis:
    """The basis of one attention, ready for the graph: per task ``kernels`` (R, 3, 3) and ``mixtures`` (P, R).

    ``errors``: relative L2 error of each task's attended map on the frames held aside. ``bound``: what they were kept
    under, ``None`` where the user chose the ranks. ``frames``: how many made the statistics, and how many measured;
    ``frames_sha256``: of all of them as the network saw them, in order.
    """

    tasks: tuple[str, ...]
    chosen: Kernels
    errors: Mapping[str, float]
    bound: float | None
    frames: tuple[int, int]
    frames_sha256: str

    @property
    def kernels(self) -> tuple[Tensor, ...]:
        """Basis kernels per task, (R, 3, 3)."""
        return self.chosen.kernels

    @property
    def mixtures(self) -> tuple[Tensor, ...]:
        """How each pixel mixes them, per task (P, R)."""
        return self.chosen.mixtures

    @property
    def ranks(self) -> dict[str, int]:
        """Kernels per task."""
        return {task: len(kernels) for task, kernels in zip(self.tasks, self.kernels, strict=True)}

    def facts(self) -> dict[str, Any]:
        """Return what the manifest says of it, for json."""
        return {
            "ranks": self.ranks,
            "attended_error": dict(self.errors),
            "expected_affinity_error": dict(zip(self.tasks, self.chosen.expected, strict=True)),
            "bound": self.bound,
            "frames": {"statistics": self.frames[0], "held_aside": self.frames[1]},
            "frames_sha256": self.frames_sha256,
        }


class PartTally:
    """Inner products of the parts of every attended map, summed over frames: what each choice of ranks costs."""

    def __init__(self, attention: CrossTaskAttention, full: Decomposition) -> None:
        self.attention = attention
        dtype, T = attention.fusion_layer.weight.dtype, len(attention.tasks)
        self._kernels_T933, self._mix_PK = full.kernels.to(dtype), full.mix.flatten(1).to(dtype)
        self._inner_TKK = torch.zeros(T, FULL_RANK * T, FULL_RANK * T, dtype=torch.float64)
        self._energy_T = torch.zeros(T, dtype=torch.float64)

    @torch.no_grad()
    def update(self, feats: Feats) -> None:
        """Add a frame: the features (1, C, H, W) per task that the attention is given."""
        tasks, bias_P = self.attention.tasks, self.attention.fusion_layer.bias
        unit_TCHW = _unit(self.attention, feats)
        value_TCP = torch.cat([self.attention.projection[task](feats[task]) for task in tasks]).flatten(2)
        gathers = []
        for unit_CHW, kernels_933 in zip(unit_TCHW, self._kernels_T933, strict=True):
            for kernel_33 in kernels_933:
                key_CP = respond(unit_CHW[None, None], kernel_33[None, None])[0, 0, 0].flatten(1)
                gathers.append(value_TCP @ key_CP.T)
        gather_TKCC = torch.stack(gathers, dim=1)
        value_sum_TC1 = value_TCP.sum(2, keepdim=True)
        unit_TCP = unit_TCHW.flatten(2)
        for start in range(0, unit_TCP.shape[2], _PIXELS_AT_ONCE):
            pixels = slice(start, start + _PIXELS_AT_ONCE)
            query_KCP = unit_TCP[:, :, pixels].repeat_interleave(FULL_RANK, 0) * self._mix_PK[pixels].T[:, None]
            for task, (gather_KCC, value_sum_C1) in enumerate(zip(gather_TKCC, value_sum_TC1, strict=True)):
                part_KCP = gather_KCC @ query_KCP
                whole_CP = part_KCP.sum(0) + value_sum_C1 * bias_P[pixels]
                part_KE = part_KCP.flatten(1)
                self._inner_TKK[task] += (part_KE @ part_KE.T).double()
                self._energy_T[task] += whole_CP.double().square().sum()

    def errors(self, ranks: Sequence[int]) -> Tensor:
        """Return the relative L2 error of each task's attended map, (T,), where task t keeps ``ranks[t]`` kernels."""
        left_K = torch.cat([_left_out(rank) for rank in ranks])
        energy_T = torch.einsum("k,tkl,l->t", left_K, self._inner_TKK, left_K).clamp_min(0)
        # A map without energy has no error either: nothing reached it.
        return (energy_T / self._energy_T.clamp_min(torch.finfo(torch.float64).tiny)).sqrt()

    def shares(self, ranks: Sequence[int], attended: int) -> Tensor:
        """Return what each task's parts left out make of the error of the map ``attended``, alone: (T,), relative."""
        alone = [[own if index == task else FULL_RANK for index, own in enumerate(ranks)] for task in range(len(ranks))]
        return torch.stack([self.errors(one)[attended] for one in alone])


def collect(network: Network, images: Iterable[Float32], progress: Progress | None = None) -> dict[str, Tensor]:
    """Return S of every attention of ``network`` by its path, (T, 9, 9) float64: the mean of `second_moments`.

    ``images``: calibration frames as the network takes them, (1, 3, H, W) float32; seen one at a time.

    Raises:
        CalibrationError: no frames, or frames that make features that are not finite.
        ExportError: the network has no CTAL.
        FrameError: a frame of another shape.
    """
    sums: dict[str, Tensor] = {}
    frames = 0
    for seen in _features(network, images):
        frames += 1
        for path, (attention, feats) in seen.items():
            moments_T99 = second_moments(_unit(attention, feats))
            sums[path] = moments_T99 if path not in sums else sums[path] + moments_T99
        if progress is not None:
            progress(frames)
    if not frames:
        raise CalibrationError("a kernel basis needs calibration frames and got none; give --calib-data")
    return {path: moments_T99 / frames for path, moments_T99 in sums.items()}


def choose(
    network: Network,
    images: Sequence[Float32],
    *,
    rank: int | None = None,
    bound: float = DEFAULT_BOUND,
    progress: Progress | None = None,
) -> dict[str, Basis]:
    """Return a basis for every attention of ``network``, by its path.

    Three frames of four make the statistics; the fourth ones, held aside, measure the attended maps. With ``rank`` all
    tasks have that many kernels, and the errors are reported. Else ranks are the smallest with every map under
    ``bound`` (`smallest_ranks`). ``progress`` counts each frame once.

    Raises:
        CalibrationError: fewer than two frames, or frames that make no finite, non-zero features.
        ExportError: a rank outside 1 to 9, a bound that is not positive, or a network without CTAL.
        FrameError: a frame of another shape.
    """
    attentions = _attentions(network)
    if rank is not None:
        check_ranks([rank], 1)
    if not 0 < bound < 1:
        raise ExportError(f"kernel basis: bound {bound} is not between 0 and 1; 0.02 allows 2 % of an attended map")
    if len(images) < 2:
        raise CalibrationError(
            f"a kernel basis needs at least two calibration frames, one to measure on, and got {len(images)}; "
            "give more with --calib-data and --calib-frames"
        )
    aside = [index for index in range(len(images)) if index % _HELD_ASIDE == 1]
    used = [index for index in range(len(images)) if index not in aside]
    moments = collect(network, (images[index] for index in used), progress)
    fulls = {
        path: decompose(
            attention.fusion_layer.weight.detach(), moments[path], [f"{path}, {task}" for task in attention.tasks]
        )
        for path, attention in attentions.items()
    }
    tallies = {path: PartTally(attention, fulls[path]) for path, attention in attentions.items()}
    for count, seen in enumerate(_features(network, (images[index] for index in aside)), len(used) + 1):
        for path, (_, feats) in seen.items():
            tallies[path].update(feats)
        if progress is not None:
            progress(count)
    digest = _digest(images)
    bases = {}
    for path, attention in attentions.items():
        tasks, tally = attention.tasks, tallies[path]
        ranks = smallest_ranks(tally, bound) if rank is None else (rank,) * len(tasks)
        errors = dict(zip(tasks, tally.errors(ranks).tolist(), strict=True))
        frames = (len(used), len(aside))
        limit = bound if rank is None else None
        bases[path] = Basis(tasks, fulls[path].keep(ranks), errors, limit, frames, digest)
    return bases


def smallest_ranks(tally: PartTally, bound: float) -> tuple[int, ...]:
    """Return ranks per task that keep the error of every attended map at or under ``bound``.

    Every map mixes the affinities of all tasks. So, from one kernel each: while a map is over, the task whose parts
    left out weigh most in the map that is furthest over gets one kernel more. At last, ranks go down again wherever
    all maps allow it, the largest first: none of those returned can be lowered by one.
    """
    ranks = [1] * len(tally.attention.tasks)
    while not bool((tally.errors(ranks) <= bound).all()):
        worst = int(tally.errors(ranks).argmax())
        # Tasks at full rank leave nothing out; only among those that do is one to be raised.
        shares_T = tally.shares(ranks, worst)
        shares_T[torch.tensor(ranks) == FULL_RANK] = -1
        ranks[int(shares_T.argmax())] += 1
    lowered = True
    while lowered:
        lowered = False
        for task in sorted(range(len(ranks)), key=lambda index: -ranks[index]):
            fewer = [rank - (index == task) for index, rank in enumerate(ranks)]
            if fewer[task] >= 1 and bool((tally.errors(fewer) <= bound).all()):
                ranks, lowered = fewer, True
                break
    return tuple(ranks)


def _attentions(network: Network) -> dict[str, CrossTaskAttention]:
    attentions = network.attentions()
    if not attentions:
        raise ExportError(
            f"model {network.spec.name!r} ({network.spec.network}) has no CTAL, so there are no kernels to choose; "
            "leave --ctal out"
        )
    return attentions


def _features(network: Network, images: Iterable[Float32]) -> Iterator[dict[str, tuple[CrossTaskAttention, Feats]]]:
    """Yield, per frame, every attention and the features that it is given, by its path."""
    network = copy.deepcopy(network).eval().requires_grad_(False)
    attentions = _attentions(network)
    seen: dict[str, tuple[CrossTaskAttention, Feats]] = {}
    for path, attention in attentions.items():
        attention.form = "exact"

        def remember(module: CrossTaskAttention, given: tuple[Feats], path: str = path) -> None:
            seen[path] = module, given[0]

        attention.register_forward_pre_hook(remember)
    for image_13HW in images:
        with torch.inference_mode():
            network.deploy(torch.from_numpy(image_13HW))
        for path, (_, feats) in seen.items():
            unfit = [task for task, feat_1CHW in feats.items() if not feat_1CHW.isfinite().all()]
            if unfit:
                raise CalibrationError(
                    f"{path}: a calibration frame makes features of {', '.join(unfit)} that are not finite; "
                    "check the frames for NaN, and the weights"
                )
        yield seen


def _left_out(rank: int) -> Tensor:
    return (torch.arange(FULL_RANK) >= rank).double()


def _unit(attention: CrossTaskAttention, feats: Feats) -> Tensor:
    """Return the features of unit length of one frame, (T, C, H, W)."""
    return normalise(torch.stack([feats[task] for task in attention.tasks], dim=1))[0]


def _digest(images: Sequence[Float32]) -> str:
    digest = hashlib.sha256()
    for index in range(len(images)):
        digest.update(np.ascontiguousarray(images[index], "<f4").tobytes())
    return digest.hexdigest()
