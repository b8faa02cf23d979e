"""Tensors in the official naming: made of our networks, and read into them."""

from collections import defaultdict

import torch


def shapes_of(state):
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def to_official(network, sources):
    """The network's tensors as an official file would hold them: `Source.extract`, inverted."""
    pieces = defaultdict(dict)
    for ours, tensor in network.state_dict().items():
        source = sources[ours]
        stored = tensor.T if source.transposed else tensor
        index, count = source.part or (0, 1)
        pieces[source.name, count][index] = stored[..., None, None] if source.kernel else stored
    return {
        name: parts[0] if count == 1 else torch.cat([parts[index] for index in range(count)])
        for (name, count), parts in pieces.items()
    }


def read_official(build, settings, sources, state):
    """A network filled with tensors in the official naming, in evaluation mode."""
    with torch.device("meta"):
        network = build(settings)
    filled = {}
    for ours, target in network.state_dict().items():
        stored = state[sources[ours].name]
        assert tuple(stored.shape) == sources[ours].official_shape(tuple(target.shape)), ours
        filled[ours] = sources[ours].extract(stored).contiguous()
    network.load_state_dict(filled, assign=True)
    for module in network.modules():
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_meta:  # position numbers, which no file holds
                module._buffers[name] = torch.arange(buffer.shape[-1]).expand(buffer.shape)
    return network.eval().requires_grad_(False)


def check_map(build, settings, sources, shapes):
    """Every tensor of the network has a source of the right shape; returns the names left over."""
    with torch.device("meta"):
        network = build(settings)
    targets = network.state_dict()
    assert set(targets) == set(sources)
    for ours, target in targets.items():
        source = sources[ours]
        assert shapes[source.name] == source.official_shape(tuple(target.shape)), ours
    return set(shapes) - {source.name for source in sources.values()}
