"""The paper's optimiser: SGD with momentum, biases at twice the rate and without decay (CVPR section 4.3)."""

from __future__ import annotations

from torch import nn
from torch.nn import Parameter
from torch.optim import SGD

BIAS_RATE = 2.0


def parameter_groups(model: nn.Module, weight_decay: float, score_lr: float) -> list[dict[str, object]]:
    """Groups of the parameters that learn, each with its multiplier ``lr_mult`` of the rate and its decay.

    ``score*`` layers have their rate multiplied by ``score_lr``, biases by two; learned ``up*`` layers are not
    decayed: decay would shrink the interpolation they start from. Frozen parameters are left out.
    """
    members: dict[tuple[float, float], list[Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        # Of late fusion the two networks are color and hha.
        is_bias = name.endswith(".bias")
        layer = name.removeprefix("color.").removeprefix("hha.").split(".")[0]
        rate = (BIAS_RATE if is_bias else 1.0) * (score_lr if layer.startswith("score") else 1.0)
        decay = 0.0 if is_bias or layer.startswith("up") else weight_decay
        members.setdefault((rate, decay), []).append(parameter)
    return [
        {"params": parameters, "lr_mult": rate, "weight_decay": decay}
        for (rate, decay), parameters in members.items()
    ]


def make_optimizer(model: nn.Module, *, momentum: float, weight_decay: float, score_lr: float = 1.0) -> SGD:
    """SGD over ``parameter_groups``; its rate is set by ``set_rate`` before every step."""
    return SGD(parameter_groups(model, weight_decay, score_lr), lr=0.0, momentum=momentum)


def set_rate(optimizer: SGD, rate: float) -> None:
    """Gives every group its multiple of the base learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["lr_mult"]
