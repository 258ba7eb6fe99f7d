"""The compiler is loaded when it is needed, and not by importing open_clip or timm."""

import subprocess
import sys

import pytest

CASES = {
    "a model answers without it, and it is the real one afterwards": """
        from vendor_service.encoder.libraries import open_clip
        import torch

        model = open_clip.create_model("ViT-S-32-alt", pretrained=None).eval()
        with torch.inference_mode():
            assert model.encode_text(open_clip.get_tokenizer("ViT-S-32-alt")(["a cat"])).shape == (1, 256)
        assert not [name for name in sys.modules if name.startswith("torch._dynamo")]

        import torch._dynamo.utils

        assert torch._dynamo.config.cache_size_limit > 0 and torch._dynamo.utils.counters is not None
        assert sys.modules["torch._dynamo"].__file__
    """,
    "a student answers without it": """
        from client.learning.backbones import load_backbone
        import torch

        with torch.inference_mode():
            features = load_backbone("tf_efficientnet_lite0").eval()(torch.zeros(1, 3, 64, 64))
        assert features.shape == (1, 1280)
        assert not [name for name in sys.modules if name.startswith("torch._dynamo")]
    """,
    "whoever needs more of it while something is imported has it": """
        from shared.compiler import compiler_later

        with compiler_later():
            import torch._dynamo

            assert torch._dynamo.config.cache_size_limit > 0
            assert torch._dynamo.utils.is_compile_supported("cpu") in (True, False)
        assert sys.modules["torch._dynamo"].__file__
    """,
    "what is not to be compiled is not": """
        from shared.compiler import compiler_later
        import torch

        def compiled(inputs):
            return inputs + float(torch.compiler.is_compiling())

        with compiler_later():
            apart = torch.compiler.disable(compiled)
        zero = torch.zeros(1)
        assert apart(zero) == 0 and "torch._dynamo" not in sys.modules
        assert torch.compile(compiled, backend="eager")(zero) == 1
        assert torch.compile(lambda inputs: apart(inputs) + 0, backend="eager")(zero) == 0
    """,
    "a failure leaves no stand-in": """
        from shared.compiler import compiler_later

        try:
            with compiler_later():
                raise ImportError
        except ImportError:
            assert "torch._dynamo" not in sys.modules
    """,
}


@pytest.mark.parametrize("case", CASES)
def test_the_compiler_waits_until_it_is_needed(case: str) -> None:
    program = "if True:\n        import sys\n" + CASES[case]
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
