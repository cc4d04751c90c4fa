"""The README's example does what it says, and its links lead somewhere."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.packaging._files import ROOT

README = (ROOT / "README.md").read_text()


def test_example_replaces_what_it_says_it_replaces() -> None:
    before, after = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    torch.manual_seed(0)
    labels = torch.randint(0, 6, (2, 75, 100))
    labels[labels == 5] = 255
    given = {"scores": torch.randn(2, 5, 10, 13, requires_grad=True), "labels": labels, "F": F}
    theirs: dict[str, Any] = dict(given)
    ours: dict[str, Any] = dict(given)
    exec(before, theirs)
    exec(after, ours)
    torch.testing.assert_close(ours["loss"], theirs["loss"])
    (gradient,) = torch.autograd.grad(ours["loss"], given["scores"])
    (wanted,) = torch.autograd.grad(theirs["loss"], given["scores"])
    torch.testing.assert_close(gradient, wanted)
    assert (ours["labels_out"] != theirs["labels_out"]).float().mean() < 1e-3  # near ties


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#:]+)\)", README))
def test_link_leads_to_a_file(link: str) -> None:
    assert (ROOT / link).is_file()
