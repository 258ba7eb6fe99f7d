"""A CLIP server as it is written in an afternoon: FastAPI and open_clip, and neither accounts nor batches."""

import io
from pathlib import Path
from typing import Annotated

import open_clip
import torch
import uvicorn
from fastapi import Body, FastAPI, File
from PIL import Image


def create_app(model_folder: Path, *, threaded: bool) -> FastAPI:
    """`POST /images` (files) and `POST /texts`, which answer with unit vectors.

    As most write it, the model runs in the event loop; if it is `threaded`, in the server's threads, several
    requests at a time.
    """
    app = FastAPI()
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{model_folder}")
    model.eval()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{model_folder}")

    def unit(features: torch.Tensor) -> dict[str, list[list[float]]]:
        return {"embeddings": (features / features.norm(dim=-1, keepdim=True)).tolist()}

    def images(files: Annotated[list[bytes], File()]) -> dict[str, list[list[float]]]:
        pictures = [preprocess(Image.open(io.BytesIO(each)).convert("RGB")) for each in files]
        with torch.inference_mode():
            return unit(model.encode_image(torch.stack(pictures)))

    def texts(texts: Annotated[list[str], Body()]) -> dict[str, list[list[float]]]:
        with torch.inference_mode():
            return unit(model.encode_text(tokenizer(texts)))

    async def images_in_loop(files: Annotated[list[bytes], File()]) -> dict[str, list[list[float]]]:
        return images(files)

    async def texts_in_loop(asked: Annotated[list[str], Body()]) -> dict[str, list[list[float]]]:
        return texts(asked)

    app.post("/images")(images if threaded else images_in_loop)
    app.post("/texts")(texts if threaded else texts_in_loop)
    return app


def serve(model_folder: str, port: int, *, threaded: bool) -> None:
    """Serve it until the process is stopped."""
    uvicorn.run(create_app(Path(model_folder), threaded=threaded), port=port, log_level="warning")
