"""A plain torch rasterizer: the same rules as the product's, every Gaussian at every pixel.

Slow and readable, differentiated by autograd. It shares no code with what it checks.
"""

import torch

from hi3d_core.cameras import Cameras


def rotation_matrices(quaternions):
    w, x, y, z = torch.nn.functional.normalize(quaternions, dim=-1).unbind(-1)
    rows = [
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], -1),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], -1),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], -1),
    ]
    return torch.stack(rows, -2)


def project(means, scales, quaternions, world_to_camera, intrinsics, width, height):
    """Pixel positions (N, 2), covariances (N, 2, 2), depths (N,)."""
    rotation, translation = world_to_camera[:3, :3], world_to_camera[:3, 3]
    local = means @ rotation.T + translation
    factor = rotation_matrices(quaternions) * scales[:, None, :]
    covariance = rotation @ factor @ factor.transpose(1, 2) @ rotation.T
    z = local[:, 2]
    fx, fy, cx, cy = intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2], intrinsics[1, 2]
    margin_x, margin_y = 0.3 * 0.5 * width / fx, 0.3 * 0.5 * height / fy
    x_ratio = (local[:, 0] / z).clamp(-cx / fx - margin_x, (width - cx) / fx + margin_x)
    y_ratio = (local[:, 1] / z).clamp(-cy / fy - margin_y, (height - cy) / fy + margin_y)
    zero = torch.zeros_like(z)
    jacobian = torch.stack(
        [
            torch.stack([fx / z, zero, -fx * x_ratio / z], -1),
            torch.stack([zero, fy / z, -fy * y_ratio / z], -1),
        ],
        -2,
    )
    blur = 0.3 * torch.eye(2, dtype=means.dtype)
    pixels = torch.stack([fx * local[:, 0] / z + cx, fy * local[:, 1] / z + cy], -1)
    return pixels, jacobian @ covariance @ jacobian.transpose(1, 2) + blur, z


def rasterize(means, scales, quaternions, opacities, colors, cameras: Cameras, background=None):
    """Colours (V, H, W, 3), alphas (V, H, W), depths (V, H, W)."""
    results = []
    for view in range(len(cameras)):
        shown = colors if colors.ndim == 2 else colors[view]
        results.append(
            _rasterize_one(
                means, scales, quaternions, opacities, shown, background,
                cameras.world_to_camera[view].to(means), cameras.intrinsics[view].to(means),
                cameras.width, cameras.height,
            )
        )  # fmt: skip
    return tuple(torch.stack(parts) for parts in zip(*results, strict=True))


def _rasterize_one(
    means, scales, quaternions, opacities, colors, background, pose, intrinsics, width, height
):
    depth_in_camera = (means @ pose[:3, :3].T + pose[:3, 3])[:, 2]
    near_first = torch.argsort(depth_in_camera)
    keep = near_first[depth_in_camera[near_first] > 0.01]
    pixels, covariances, z = project(
        means[keep], scales[keep], quaternions[keep], pose, intrinsics, width, height
    )
    y, x = torch.meshgrid(
        torch.arange(height, dtype=means.dtype) + 0.5,
        torch.arange(width, dtype=means.dtype) + 0.5,
        indexing="ij",
    )
    image = torch.zeros(height, width, 3, dtype=means.dtype)
    depth_sum = torch.zeros(height, width, dtype=means.dtype)
    transmittance = torch.ones(height, width, dtype=means.dtype)
    ended = torch.zeros(height, width, dtype=torch.bool)
    inverse = torch.linalg.inv(covariances)
    for k, n in enumerate(keep.tolist()):
        offset = torch.stack([x - pixels[k, 0], y - pixels[k, 1]], -1)
        sigma = 0.5 * torch.einsum("hwi,ij,hwj->hw", offset, inverse[k], offset)
        alpha = (opacities[n] * torch.exp(-sigma)).clamp_max(0.999)
        alpha = torch.where(alpha >= 1 / 255, alpha, torch.zeros_like(alpha))
        ended = ended | (transmittance * (1 - alpha) <= 1e-4)
        weight = torch.where(ended, torch.zeros_like(alpha), alpha * transmittance)
        image = image + weight[..., None] * colors[n]
        depth_sum = depth_sum + weight * z[k]
        transmittance = torch.where(ended, transmittance, transmittance * (1 - alpha))
    alphas = 1 - transmittance
    if background is not None:
        image = image + transmittance[..., None] * background
    return image, alphas, depth_sum / alphas.clamp_min(1e-10)
