"""ID embeddings in training: a step that updates those it asks for, so that it costs as much whatever the number of items.

A gradient of a table of ID embeddings is zero but for the items of the batch and the drawn negatives. AdamW reads and
writes all rows and two moments of each all the same, which at a million items is nearly all that a step does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from diffgrm.foundation.sections import TrainingSettings
from diffgrm.networks.item_vectors import Branch

logger = logging.getLogger(__name__)

LARGE_TABLE = 100_000  # rows from which training.table_updates=auto updates those that a step asks for


class RowAdamW(torch.optim.AdamW):
    """AdamW, which updates of parameters with sparse gradients the rows that those hold.

    Each row is a parameter of its own that learns in the steps that ask for it: its moments, their bias correction and its
    weight decay go by how often it was asked for (Kingma and Ba, 2015, algorithm 1, by row; Loshchilov and Hutter, 2019).
    With a gradient for every row in every step it is AdamW. ``torch.optim.SparseAdam`` corrects by the steps of all rows
    instead, so that rows which are met late take steps several times too large.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; see :class:`torch.optim.AdamW`."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        tables = [(group, table) for group in self.param_groups for table in group["params"] if _sparse(table.grad)]
        gradients = []
        for group, table in tables:
            self._update_rows(table, group)
            gradients.append(table.grad)
            table.grad = None  # nothing is left of it to do
        super().step()
        for (_, table), gradient in zip(tables, gradients, strict=True):
            table.grad = gradient
        return loss

    def _update_rows(self, table: Tensor, group: dict[str, Any]) -> None:
        gradient = table.grad.coalesce()  # type: ignore[union-attr]
        rows, found = gradient.indices()[0], gradient.values()
        state, (beta1, beta2) = self.state[table], group["betas"]
        if not state:  # named as AdamW names them, which looks for its step when it is read again
            state["step"] = torch.zeros(len(table), device=table.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(table), torch.zeros_like(table)
        times = state["step"][rows] + 1
        mean = state["exp_avg"][rows].lerp_(found, 1 - beta1)
        square = state["exp_avg_sq"][rows].mul_(beta2).addcmul_(found, found, value=1 - beta2)
        for name, part in (("step", times), ("exp_avg", mean), ("exp_avg_sq", square)):
            state[name][rows] = part
        size = group["lr"] / (1 - beta1**times)
        spread = (square.sqrt() / (1 - beta2**times).sqrt()[:, None]).add_(group["eps"])
        table[rows] = table[rows] * (1 - group["lr"] * group["weight_decay"]) - size[:, None] * mean / spread


def clip_gradients(parameters: Iterable[Tensor], most: float) -> None:
    """Scale the gradients so that the norm of all of them is ``most`` at most; sparse ones hold each row once then."""
    dense, gradients, rows = list[Tensor](), list[Tensor](), list[Tensor]()
    for parameter in parameters:
        if _sparse(parameter.grad):
            parameter.grad = parameter.grad.coalesce()  # type: ignore[union-attr]
            rows.append(parameter.grad.values())
        elif parameter.grad is not None:
            dense.append(parameter)
            gradients.append(parameter.grad)
    norm = torch.nn.utils.get_total_norm([*gradients, *rows])
    torch.nn.utils.clip_grads_with_norm_(dense, most, norm)
    for values in rows:
        values.mul_((most / (norm + 1e-6)).clamp(max=1.0))


def choose_updates(network: nn.Module, settings: TrainingSettings, few_items: bool) -> None:
    """Let the gradients of ID embeddings hold all rows, or those that a step asks for, as the settings say.

    Args:
        few_items: whether steps ask for few items, see :attr:`diffgrm.learning.objectives.base.Objective.few_items`.
    """
    asked = settings.table_updates == "asked_rows"
    auto = settings.table_updates == "auto" and few_items and settings.processes == 1
    for branch in branches_with_tables(network):
        rows = max(len(table) for table, _ in branch.tables())
        branch.sparse = asked or (auto and rows >= LARGE_TABLE)
        if branch.sparse:
            logger.info("Of %d ID embeddings, a step updates those that it asks for.", rows)


def branches_with_tables(network: nn.Module) -> list[Branch]:
    """The branches of item vectors that have a row for every item."""
    return [module for module in network.modules() if isinstance(module, Branch) and module.tables()]


def _sparse(gradient: Tensor | None) -> bool:
    return gradient is not None and gradient.is_sparse
