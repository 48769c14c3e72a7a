"""Linear layers, bilinear ones and embeddings."""

from typing import Any

import torch
from torch import Tensor, nn

from pontryagin.affine.affine_map import AffineMap, Arguments, bias_of, dense, first_argument, linear_rows
from pontryagin.affine.registry import register


def _bilinear(module: nn.Bilinear) -> list[AffineMap]:
    """z_k = x^T W_k y + b_k: linear in the products of the entries of x and y."""

    def products(arguments: Arguments, named: dict[str, Any], output: Any = None) -> Tensor | None:
        given = dict(zip(("input1", "input2"), arguments, strict=False)) | named
        if not {"input1", "input2"} <= given.keys():
            return None
        return (given["input1"].detach().unsqueeze(-1) * given["input2"].detach().unsqueeze(-2)).flatten(-2)

    return [dense(module, "weight", bias_of(module), kind="Bilinear", inputs=products, is_dense=False)]


def _embedding(module: nn.Embedding) -> list[AffineMap]:
    if module.max_norm is not None or module.sparse or module.scale_grad_by_freq:
        return []

    def indices(arguments: Arguments, named: dict[str, Any], output: Any = None) -> Tensor | None:
        x = first_argument(arguments, named)
        return x if x is not None and x.dtype in (torch.int64, torch.int32) else None

    return [AffineMap("Embedding", "weight", None, lambda x: x.reshape(1, -1, 1),
                      lambda w: w.mT.unsqueeze(0),
                      lambda matrix: matrix.squeeze(0).mT.reshape(module.weight.shape), linear_rows,
                      one_hot=True, padding=module.padding_idx, inputs=indices, row_axes=lambda x: x.ndim,
                      fits=lambda x, z: z.shape == (*x.shape, module.embedding_dim)
                      and bool(x.numel() and x.min() >= 0 and x.max() < module.num_embeddings))]


register(nn.Linear, lambda module: [dense(module, "weight", bias_of(module), kind="Linear")])
register(nn.Bilinear, _bilinear, whole=lambda module: None)  # of two arguments
register(nn.Embedding, _embedding)
