"""The rendering process of runs/play/frames.py: ``python -m hepo_isaac.runs.play.frames_worker``.

Reads messages "<bytes>\n<data>": first the job as JSON, then for each picture generalised positions and marker poses,
float64. Answers each with a line of JSON, and the picture behind it where that says ok.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any, BinaryIO, Dict, Iterator

import numpy as np

from hepo_isaac.runs.play.video_worker import InputError, classify, draw, make_camera


def messages(source: BinaryIO) -> Iterator[bytes]:
    """The data of one message after the other, until whoever writes them has gone."""
    while True:
        line = source.readline()
        if not line:
            return
        yield source.read(int(line))


def pictures(job: Dict[str, Any], source: Iterator[bytes]) -> Iterator[np.ndarray]:
    """A picture for every pair of messages."""
    import mujoco

    try:
        model = mujoco.MjModel.from_xml_string(job["xml"])
    except ValueError as error:
        raise InputError("the model does not compile: %s" % " ".join(str(error).split())) from error
    model.vis.global_.offwidth = max(job["width"], model.vis.global_.offwidth)
    model.vis.global_.offheight = max(job["height"], model.vis.global_.offheight)
    camera = make_camera(mujoco, model, job["camera"])

    def positions() -> Iterator[np.ndarray]:
        for data in source:
            qpos = np.frombuffer(data, np.float64)
            if qpos.shape != (model.nq,):
                raise InputError("a state has %d numbers and the model has nq = %d" % (qpos.size, model.nq))
            yield qpos

    def markers() -> Iterator[np.ndarray]:
        for data in source:
            yield np.frombuffer(data, np.float64).reshape(model.nmocap, 7)

    # draw() asks for a position, then for the markers of the same picture: the order in which they are sent
    return draw(mujoco, model, positions(), markers(), camera, job["width"], job["height"])


def main() -> None:
    """Draw until nobody asks any more."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a graphics driver prints must not end up in a picture
    try:
        source = messages(sys.stdin.buffer)
        for picture in pictures(json.loads(next(source).decode("utf-8")), source):
            out.write(json.dumps({"kind": "ok", "message": ""}).encode("utf-8") + b"\n" + picture.tobytes())
            out.flush()
    except BrokenPipeError:
        pass
    except Exception as error:
        kind, message = classify(error)
        out.write(json.dumps({"kind": kind, "message": message}).encode("utf-8") + b"\n")
        out.flush()


if __name__ == "__main__":
    main()
