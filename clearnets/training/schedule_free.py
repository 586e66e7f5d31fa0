"""Schedule-free AdamW whose step is one fused pass, and whose two modes are exact inverses."""

from __future__ import annotations

from typing import Any

import torch
from schedulefree import AdamWScheduleFree


class ExactScheduleFree(AdamWScheduleFree):
    """Schedule-free AdamW with the same equations as the original and three differences.

    The original computes the averaged weights x from the training weights y in place and y from x
    again, which rounds twice: each evaluation would change the training a little. Here `eval()`
    keeps a copy of y in the optimizer's state and `train()` puts it back bit for bit. The copy is
    a part of `state_dict()`, so a state that was saved in eval mode holds everything.

    A step is torch's fused Adam on z and three more passes, in place of nine; so it also rounds in
    the same way on processors of every vendor, which the square root of a tensor does not.
    """

    @torch.no_grad()
    def eval(self) -> None:
        """Put the averaged weights into the parameters and keep the training weights aside."""
        for group in self.param_groups:
            if group["train_mode"]:
                for p in group["params"]:
                    if "z" in self.state[p]:
                        self.state[p]["training_weights"] = p.detach().clone()
        super().eval()

    @torch.no_grad()
    def train(self) -> None:
        """Put the training weights back as they were before `eval()`."""
        for group in self.param_groups:
            if not group["train_mode"]:
                for p in group["params"]:
                    if "training_weights" in self.state[p]:
                        p.copy_(self.state[p].pop("training_weights"))
                group["train_mode"] = True

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Do one step; `closure` is not supported."""
        assert closure is None
        for group in self.param_groups:
            assert group["train_mode"], "call train() before step()"
            self._step(group)

    def _step(self, group: dict[str, Any]) -> None:
        params = [p for p in group["params"] if p.grad is not None]
        for p in params:
            if "z" not in self.state[p]:
                self.state[p] |= {"z": torch.clone(p), "exp_avg_sq": torch.zeros_like(p)}
        if not params:
            return
        grads: list[Any] = [p.grad for p in params]
        z = [self.state[p]["z"] for p in params]
        variances = [self.state[p]["exp_avg_sq"] for p in params]
        lr, share = _schedule(group)
        (beta1, beta2), decay = group["betas"], group["weight_decay"]
        # y = (1 - beta1) z + beta1 x, and x moves by `share` of the way to the new z.
        torch._foreach_sub_(params, z, alpha=1 - beta1)  # beta1 x
        if decay:
            torch._foreach_mul_(z, 1 - lr * decay * (1 - beta1))
            torch._foreach_sub_(z, params, alpha=lr * decay)
        # Without momentum the first moment is the gradient itself.
        torch._fused_adam_(
            z,
            grads,
            grads,
            variances,
            [],
            [torch.tensor(float(group["k"]), device=params[0].device)] * len(params),
            lr=lr,
            beta1=0.0,
            beta2=beta2,
            weight_decay=0.0,
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )
        torch._foreach_mul_(params, 1 - share)
        torch._foreach_add_(params, z, alpha=1 - beta1 * (1 - share))


def _schedule(group: dict[str, Any]) -> tuple[float, float]:
    """Count a step; return its learning rate, and the weight of its z in the average."""
    group["k"] += 1
    warmup = group["warmup_steps"]
    lr = group["lr"] * min(1.0, group["k"] / warmup if warmup else 1.0)
    group["scheduled_lr"] = lr
    group["lr_max"] = max(lr, group["lr_max"])
    weight = group["k"] ** group["r"] * group["lr_max"] ** group["weight_lr_power"]
    group["weight_sum"] += weight
    return lr, weight / group["weight_sum"] if group["weight_sum"] else 0.0
