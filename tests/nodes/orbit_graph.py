"""The beginning of graphs that read the example orbit: its frames, masks and cameras."""

VIEWS = {
    "1": {"class_type": "LoadVideo", "inputs": {"file": "horse_orbit.mp4"}},
    "2": {"class_type": "GetVideoComponents", "inputs": {"video": ["1", 0]}},
    "3": {
        "class_type": "Hi3DPrepareImage",
        "inputs": {"image": ["2", 0], "framing": "keep", "size": 512, "foreground_ratio": 0.85},
    },
    "4": {
        "class_type": "Hi3DOrbitCameras",
        "inputs": {
            **{"count": 16, "elevation": 10.0, "radius": 1.5, "fov": 49.134},
            **{"direction": "counter-clockwise", "start_azimuth": 0.0, "transforms": ""},
        },
    },
}
POSED = {"image": ["3", 0], "mask": ["3", 1], "cameras": ["4", 0]}
