"""What is to be learned from the teacher, one frozen description a term."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from bitwright.qat.distillation.attention import attention_map_loss, attention_matrix_loss
from bitwright.qat.distillation.features import feature_loss
from bitwright.qat.distillation.heads import box_loss, channel_map_loss, score_loss
from bitwright.qat.distillation.logits import distillation_loss
from bitwright.quant.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one network computed.

    Attributes:
        outputs: its floating-point results, in the order in which it returns them.
        modules: the first floating-point result of each module that a term names.
    """

    outputs: Sequence[torch.Tensor]
    modules: Mapping[str, torch.Tensor]

    def output(self, index: int) -> torch.Tensor:
        """One of the results.

        Raises:
            InputError: there are fewer.
        """
        if index >= len(self.outputs):
            raise InputError(
                f"distillation: output = {index}; the network returns {len(self.outputs)} floating-point tensors, "
                f"counted from 0"
            )
        return self.outputs[index]


class Term(Protocol):
    """A part of the loss; `module` and `teacher_module` are the modules that it looks at, empty for outputs."""

    @property
    def name(self) -> str:
        """For reports and for `Balance`."""

    @property
    def modules(self) -> tuple[str, str] | None:
        """The student's module and the teacher's."""

    def loss(self, student: Seen, teacher: Seen) -> torch.Tensor:
        """A scalar."""


@dataclass(frozen=True, kw_only=True)
class _OfOutput:
    output: int = 0

    @property
    def name(self) -> str:
        """The kind and which output."""
        return f"{type(self).__name__.lower()}.{self.output}"

    @property
    def modules(self) -> tuple[str, str] | None:
        """None."""
        return None


@dataclass(frozen=True, kw_only=True)
class _OfModule:
    """`module` by its name in the student; `teacher_module` where the teacher calls it otherwise."""

    module: str
    teacher_module: str | None = None

    @property
    def name(self) -> str:
        """The kind and which module."""
        return f"{type(self).__name__.lower()}.{self.module}"

    @property
    def modules(self) -> tuple[str, str] | None:
        """The student's and the teacher's."""
        return self.module, self.teacher_module or self.module

    def _pair(self, student: Seen, teacher: Seen) -> tuple[torch.Tensor, torch.Tensor]:
        return student.modules[self.module], teacher.modules[self.teacher_module or self.module]


@dataclass(frozen=True, kw_only=True)
class Logits(_OfOutput):
    """Class logits, [N, C, ...]; see `distillation_loss`."""

    temperature: float = 1.0

    def loss(self, student: Seen, teacher: Seen) -> torch.Tensor:
        """See the class."""
        pair = (each.output(self.output) for each in (student, teacher))
        return distillation_loss(*pair, temperature=self.temperature)


@dataclass(frozen=True, kw_only=True)
class ChannelMaps(_OfOutput):
    """Maps of classes, [N, C, H, W]; see `channel_map_loss`."""

    temperature: float = 1.0

    def loss(self, student: Seen, teacher: Seen) -> torch.Tensor:
        """See the class."""
        pair = (each.output(self.output) for each in (student, teacher))
        return channel_map_loss(*pair, temperature=self.temperature)


@dataclass(frozen=True, kw_only=True)
class Scores(_OfOutput):
    """Logits of independent classes at many places; see `score_loss`."""

    def loss(self, student: Seen, teacher: Seen) -> torch.Tensor:
        """See the class."""
        return score_loss(student.output(self.output), teacher.output(self.output))


@dataclass(frozen=True, kw_only=True)
class Boxes(_OfOutput):
    """Boxes [N, 4, ...places] at output `output`, where output `scores`, logits [N, C, ...places], is sure of one."""

    output: int = 1
    scores: int = 0

    def loss(self, student: Seen, teacher: Seen) -> torch.Tensor:
        """See `box_loss`."""
        confidence = teacher.output(self.scores).detach().sigmoid().amax(1)
        return box_loss(student.output(self.output), teacher.output(self.output), confidence)


@dataclass(frozen=True, kw_only=True)
class Feature(_OfModule):
    """What a module returns; projected to the teacher's channels where they differ. See `feature_loss`."""

    def loss(self, student: Seen, teacher: Seen) -> torch.Tensor:
        """See the class."""
        return feature_loss(*self._pair(student, teacher))


@dataclass(frozen=True, kw_only=True)
class AttentionMap(_OfModule):
    """Where a convolution's result is large; see `attention_map_loss`."""

    def loss(self, student: Seen, teacher: Seen) -> torch.Tensor:
        """See the class."""
        return attention_map_loss(*self._pair(student, teacher))


@dataclass(frozen=True, kw_only=True)
class AttentionMatrix(_OfModule):
    """A module that returns attention probabilities, [..., queries, keys]; see `attention_matrix_loss`."""

    def loss(self, student: Seen, teacher: Seen) -> torch.Tensor:
        """See the class."""
        return attention_matrix_loss(*self._pair(student, teacher))
