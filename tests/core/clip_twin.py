"""CLIP's image encoder written out from official tensors, with torch's own attention layer."""

import torch
from torch import nn
from torch.nn import functional


def quick_gelu(x):
    return x * torch.sigmoid(1.702 * x)


def encode(state, images, heads, activation):
    """state: names after "visual."; images: (N, 3, S, S). Returns (N, D)."""

    def norm(x, name):
        return functional.layer_norm(
            x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-5
        )

    def linear(x, name):
        return functional.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    kernel = state["conv1.weight"]
    width, patch = kernel.shape[0], kernel.shape[-1]
    x = functional.conv2d(images, kernel, stride=patch).flatten(2).transpose(1, 2)
    first = state["class_embedding"].expand(len(x), 1, width)
    x = norm(torch.cat([first, x], dim=1) + state["positional_embedding"], "ln_pre")
    layers = {name.split(".")[2] for name in state if name.startswith("transformer.resblocks.")}
    for layer in sorted(layers, key=int):
        block = f"transformer.resblocks.{layer}."
        attention = nn.MultiheadAttention(width, heads, batch_first=True)
        attention.load_state_dict(
            {
                name.removeprefix(f"{block}attn."): tensor
                for name, tensor in state.items()
                if name.startswith(f"{block}attn.")
            }
        )
        inner = norm(x, f"{block}ln_1")
        x = x + attention(inner, inner, inner, need_weights=False)[0]
        inner = activation(linear(norm(x, f"{block}ln_2"), f"{block}mlp.c_fc"))
        x = x + linear(inner, f"{block}mlp.c_proj")
    return norm(x[:, 0], "ln_post") @ state["proj"]
