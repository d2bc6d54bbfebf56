#!/usr/bin/env python3
"""Checks in PyTorch what promptgen exports as pytorch_model.bin.

    scripts/torch_check.py PROMPTGEN GOLDEN_FOLDER

GOLDEN_FOLDER is testdata/gpt2_golden: weights, inputs.npy and logits.npy of
transformers 2.1.1. Each exported file must load with weights_only=True, hold the
golden weights rounded to its type, bit by bit, and (in fp32) give the golden
logits.
"""
import json
import math
import subprocess
import sys
import tempfile

import numpy as np
import torch
import torch.nn.functional as F


def logits(sd, cfg, ids):
    """GPT-2 by the state dictionary's key names."""
    t = ids.shape[1]
    x = sd["transformer.wte.weight"][ids] + sd["transformer.wpe.weight"][:t]
    norm = lambda x, name: F.layer_norm(x, x.shape[-1:], sd[name + ".weight"], sd[name + ".bias"], cfg["layer_norm_epsilon"])
    linear = lambda x, name: x @ sd[name + ".weight"] + sd[name + ".bias"]
    gelu = lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    heads = lambda x: x.view(*x.shape[:2], cfg["n_head"], -1).transpose(1, 2)
    for l in range(cfg["n_layer"]):
        p = f"transformer.h.{l}."
        q, k, v = map(heads, linear(norm(x, p + "ln_1"), p + "attn.c_attn").chunk(3, -1))
        w = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        mask = sd[p + "attn.bias"][0, 0, :t, :t] > 0
        w = w.masked_fill(~mask, float("-inf")).softmax(-1)
        x = x + linear((w @ v).transpose(1, 2).reshape(x.shape), p + "attn.c_proj")
        x = x + linear(gelu(linear(norm(x, p + "ln_2"), p + "mlp.c_fc")), p + "mlp.c_proj")
    return norm(x, "transformer.ln_f") @ sd["lm_head.weight"].T


def main(promptgen, golden):
    want = torch.load(golden + "/pytorch_model.bin", weights_only=True)
    ids = torch.from_numpy(np.load(golden + "/inputs.npy").astype(np.int64))
    with tempfile.TemporaryDirectory() as tmp:
        for name, dtype in {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}.items():
            out = f"{tmp}/{name}"
            subprocess.run([promptgen, "export", "--quiet", "--model", golden, "--format", "pytorch", "--dtype", name, "--out", out],
                           check=True, stdout=subprocess.DEVNULL)
            sd = torch.load(out + "/pytorch_model.bin", weights_only=True)
            compared = 0
            for key, t in sd.items():
                if key.endswith(".attn.bias"):
                    continue
                assert t.dtype == dtype, (key, t.dtype)
                assert torch.equal(t, want[key].to(dtype)), key
                compared += t.numel()
            assert sd["lm_head.weight"].data_ptr() == sd["transformer.wte.weight"].data_ptr(), "the head is not tied"
            line = f"{name}: {len(sd)} tensors, {compared} values equal"
            if name == "fp32":
                got = logits(sd, json.load(open(out + "/config.json")), ids.view(-1, ids.shape[-1]))
                gold = torch.from_numpy(np.load(golden + "/logits.npy")).view_as(got)
                off = (got - gold).abs().max().item()
                assert off < 1e-4, off
                line += f", logits off by at most {off:.2g}"
            print(line)


main(*sys.argv[1:])
