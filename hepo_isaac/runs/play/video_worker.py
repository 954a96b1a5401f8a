"""The rendering process of runs/play/video.py: ``python -m hepo_isaac.runs.play.video_worker job.json result.json``."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Sequence, Tuple

import numpy as np

SHEET_FRAMES = 12
SHEET_COLUMNS = 4


class InputError(Exception):
    """The model, the motion or the camera is wrong; another backend would not help."""


def render(folder: Path, job: Dict[str, Any]) -> None:
    """Render the job that lies in ``folder`` (model.xml, and qpos_k.npy, markers_k.npy of every tile)."""
    import mujoco

    xml = (folder / "model.xml").read_text(encoding="utf-8")
    try:
        model = mujoco.MjModel.from_xml_string(xml)
    except ValueError as error:
        raise InputError("the model does not compile: %s" % " ".join(str(error).split())) from error
    motions = [_motion(folder, index, model) for index in range(len(job["labels"]))]
    out = Path(job["out"])
    # video codecs want even sizes
    width, height = job["width"] // 2 * 2, job["height"] // 2 * 2
    model.vis.global_.offwidth = max(width, model.vis.global_.offwidth)
    model.vis.global_.offheight = max(height, model.vis.global_.offheight)
    camera = make_camera(mujoco, model, job["camera"])
    if out.suffix == ".png":
        qpos, markers = motions[0]
        rows = np.unique(np.linspace(0, len(qpos) - 1, min(SHEET_FRAMES, len(qpos))).round().astype(int))
        frames = list(draw(mujoco, model, qpos[rows], markers[rows], camera, width, height))
        write(out, [contact_sheet(frames)], job["fps"])
    else:
        drawn = draw_motions(mujoco, model, motions, camera, width, height)
        write(out, side_by_side(drawn, job["labels"]), job["fps"])


def _motion(folder: Path, index: int, model: Any) -> Tuple[np.ndarray, np.ndarray]:
    """(qpos, markers) of a tile."""
    qpos = np.load(str(folder / ("qpos_%d.npy" % index)))
    markers = np.load(str(folder / ("markers_%d.npy" % index)))
    if qpos.shape[1] != model.nq:
        raise InputError("qpos has %d numbers per frame and the model has nq = %d" % (qpos.shape[1], model.nq))
    if markers.shape != (len(qpos), model.nmocap, 7):
        expected = (len(qpos), model.nmocap, 7)
        raise InputError("markers have shape %s, expected %s: a pose for each mocap body" % (markers.shape, expected))
    return qpos, markers


def side_by_side(drawn: Iterator[List[np.ndarray]], labels: List[str]) -> Iterator[np.ndarray]:
    """One frame out of each list of tiles, in as square a grid as there is, with what is written on them."""
    columns = int(np.ceil(np.sqrt(len(labels))))
    columns = len(labels) if len(labels) <= 3 else columns
    for tiles in drawn:
        marked = [tile if not label else written(tile, label) for tile, label in zip(tiles, labels)]
        marked += [np.zeros_like(tiles[0])] * (-len(marked) % columns)
        yield (
            np.concatenate([np.concatenate(marked[k : k + columns], 1) for k in range(0, len(marked), columns)], 0)
            if len(marked) > 1
            else marked[0]
        )


def written(tile: np.ndarray, label: str) -> np.ndarray:
    """A tile with its label in the upper left corner."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.fromarray(tile)
    draft = ImageDraw.Draw(image)
    size = max(11, tile.shape[0] // 28)
    font: Any = ImageFont.load_default(size)
    box = draft.textbbox((6, 4), label, font=font)
    draft.rectangle((0, 0, box[2] + 6, box[3] + 4), fill=(0, 0, 0))
    draft.text((6, 4), label, fill=(255, 255, 255), font=font)
    return np.asarray(image)


@dataclass
class View:
    """Where a frame is seen from: a camera, and the body it goes along with horizontally (-1: none)."""

    camera: Any
    body: int = -1
    offset: Tuple[float, float] = (0.0, 0.0)  # m, of the point looked at from that body


def make_camera(mujoco: Any, model: Any, wanted: Dict[str, Any]) -> View:
    """A named camera, or a free camera placed by ``wanted`` (default: the whole model in view)."""
    if "name" in wanted:
        index = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, wanted["name"])
        if index < 0:
            raise InputError("the model has no camera called %r" % wanted["name"])
        return View(index)
    valid = ("name", "follow", "lookat", "distance", "azimuth", "elevation")
    unknown = sorted(set(wanted) - set(valid))
    if unknown:
        raise InputError("unknown camera setting %s; valid: %s" % (unknown[0], ", ".join(valid)))
    camera = mujoco.MjvCamera()
    mujoco.mjv_defaultFreeCamera(model, camera)
    if "lookat" in wanted:
        camera.lookat[:] = wanted["lookat"]
    for name in ("distance", "azimuth", "elevation"):
        if name in wanted:
            setattr(camera, name, float(wanted[name]))
    if "follow" not in wanted:
        return View(camera)
    body = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, wanted["follow"])
    if body < 0:
        raise InputError("the model has no body called %r for the camera to follow" % wanted["follow"])
    return View(camera, body, (camera.lookat[0], camera.lookat[1]))


def draw(
    mujoco: Any, model: Any, qpos: Iterable[Any], markers: Iterable[Any], view: View, width: int, height: int
) -> Iterator[np.ndarray]:
    """Yield one (height, width, 3) uint8 frame per row of ``qpos``, asking for the next when it is to be drawn."""
    picture = painter(mujoco, model, view)
    with mujoco.Renderer(model, height, width) as renderer:
        for row, poses in zip(qpos, markers):
            yield picture(renderer, row, poses)


def draw_motions(
    mujoco: Any, model: Any, motions: Sequence[Tuple[np.ndarray, np.ndarray]], view: View, width: int, height: int
) -> Iterator[List[np.ndarray]]:
    """Yield, frame by frame, a (height, width, 3) uint8 picture of each motion; one that is over stands still."""
    picture = painter(mujoco, model, view)
    done, last = 0, [np.zeros(0)] * len(motions)
    with mujoco.Renderer(model, height, width) as renderer:
        for frame in range(max(len(qpos) for qpos, _ in motions)):
            for index, (qpos, markers) in enumerate(motions):
                if frame < len(qpos):
                    last[index] = picture(renderer, qpos[frame], markers[frame])
                    done += 1
            print(done, flush=True)  # for who waits
            yield list(last)


def painter(mujoco: Any, model: Any, view: View) -> Callable[[Any, np.ndarray, np.ndarray], np.ndarray]:
    """A function of a renderer, qpos and markers' poses that gives a picture."""
    data, camera = mujoco.MjData(model), view.camera
    lamps = model.light_pos[:, :2].copy()

    def picture(renderer: Any, row: np.ndarray, poses: np.ndarray) -> np.ndarray:
        data.qpos[:] = row
        data.mocap_pos[:], data.mocap_quat[:] = poses[:, :3], poses[:, [6, 3, 4, 5]]
        # positions only: a full forward pass would also solve contacts that nobody sees
        mujoco.mj_kinematics(model, data)
        mujoco.mj_comPos(model, data)
        if view.body >= 0:
            camera.lookat[:2] = data.xpos[view.body, :2] + view.offset
            model.light_pos[:, :2] = lamps + data.xpos[view.body, :2]  # shadows reach only so far from a lamp
        mujoco.mj_camlight(model, data)
        mujoco.mj_tendon(model, data)
        renderer.update_scene(data, camera)
        return np.array(renderer.render())

    return picture


def contact_sheet(frames: List[np.ndarray]) -> np.ndarray:
    """Frames in rows of four, a thin white line between them."""
    height, width, _ = frames[0].shape
    columns = min(SHEET_COLUMNS, len(frames))
    rows = (len(frames) + columns - 1) // columns
    gap = 4
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, dtype=np.uint8)
    for index, frame in enumerate(frames):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        sheet[top : top + height, left : left + width] = frame
    return sheet


def write(out: Path, frames: Any, fps: float) -> None:
    """Write a film or a picture beside the target first, so that a failure leaves no half file."""
    import imageio.v2 as imageio

    part = out.with_name(".part_" + out.name)
    try:
        if out.suffix == ".mp4":
            # every player shows yuv420p; H.264's native 4:4:4 is black in many
            options: Dict[str, Any] = {
                "codec": "libx264",
                "quality": 7,
                "macro_block_size": 2,
                "pixelformat": "yuv420p",
            }
            append(imageio.get_writer(str(part), fps=fps, ffmpeg_log_level="error", **options), frames)
        elif out.suffix == ".gif":
            append(imageio.get_writer(str(part), mode="I", duration=1000.0 / fps, loop=0), frames)
        else:
            imageio.imwrite(str(part), frames[0])
        part.replace(out)
    finally:
        if part.exists():
            part.unlink()


def append(writer: Any, frames: Any) -> None:
    """Write frames one at a time (a film of thousands need not fit in memory)."""
    with writer:
        for frame in frames:
            writer.append_data(frame)


def classify(error: BaseException) -> Tuple[str, str]:
    """Whose fault it is: "input" (would fail on every backend) or "gl" (try the next one)."""
    message = " ".join(("%s: %s" % (type(error).__name__, error)).split())[:300]
    if isinstance(error, InputError):
        return "input", str(error)
    if isinstance(error, ImportError) and "imageio" in str(error):
        return "input", "imageio is not installed: pip install 'hepo-isaac[video]'"
    return "gl", message


def main() -> None:
    """Run the job and leave the outcome in the result file."""
    job_file, result_file = Path(sys.argv[1]), Path(sys.argv[2])
    kind, message = "ok", ""
    try:
        render(job_file.parent, json.loads(job_file.read_text(encoding="utf-8")))
    except Exception as error:
        kind, message = classify(error)
    result_file.write_text(json.dumps({"kind": kind, "message": message}), encoding="utf-8")


if __name__ == "__main__":
    main()
