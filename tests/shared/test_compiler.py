"""The compiler is loaded when it is needed, and not by importing open_clip or timm."""

import subprocess
import sys

PROGRAM = """
import os
import sys

from shared.compiler import compiler_later

def loaded():
    return [name for name in sys.modules if name.startswith("torch._dynamo")]

# A failure leaves no stand-in.
try:
    with compiler_later():
        raise ImportError
except ImportError:
    assert not loaded()

import torch

if os.fork() == 0:  # whoever needs more of it while something is imported has it
    with compiler_later():
        import torch._dynamo

        assert torch._dynamo.config.cache_size_limit > 0
        assert torch._dynamo.utils.is_compile_supported("cpu") in (True, False)
    assert sys.modules["torch._dynamo"].__file__
    os._exit(0)
assert os.wait()[1] == 0

# A model and a student answer without it.
from client.learning.backbones import load_backbone
from vendor_service.encoder.libraries import open_clip

with torch.inference_mode():
    model = open_clip.create_model("ViT-S-32-alt", pretrained=None).eval()
    assert model.encode_text(open_clip.get_tokenizer("ViT-S-32-alt")(["a cat"])).shape == (1, 256)
    features = load_backbone("tf_efficientnet_lite0").eval()(torch.zeros(1, 3, 64, 64))
    assert features.shape == (1, 1280)
assert not loaded()

# What is not to be compiled is not.
def compiled(inputs):
    return inputs + float(torch.compiler.is_compiling())

with compiler_later():
    apart = torch.compiler.disable(compiled)
zero = torch.zeros(1)
assert apart(zero) == 0 and not loaded()
assert torch.compile(compiled, backend="eager")(zero) == 1
assert torch.compile(lambda inputs: apart(inputs) + 0, backend="eager")(zero) == 0

# It is the real one afterwards.
import torch._dynamo.utils

assert torch._dynamo.config.cache_size_limit > 0 and torch._dynamo.utils.counters is not None
assert sys.modules["torch._dynamo"].__file__
"""


def test_the_compiler_waits_until_it_is_needed() -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
