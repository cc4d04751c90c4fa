"""The paper's experiments as commands: Figure 5 and the staged training, at a size that the machine manages."""

from fcnkern.engine.reproduce.camvid import CAMVID, reproduce_stages
from fcnkern.engine.reproduce.sampling import SAMPLING, reproduce_sampling

__all__ = ["CAMVID", "SAMPLING", "reproduce_sampling", "reproduce_stages"]
