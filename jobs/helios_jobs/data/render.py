"""Draws a person in a scene: anti-aliased shapes composited back to front, all frames of a clip at once.

Coordinates: the frame spans -1..1 in x (right) and y (down). `u, v` are the head's own axes (after translation and
roll). A feature sits at a longitude and latitude of the head, so that yaw and pitch move it, foreshorten it and hide
it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from helios_jobs.data.identity import ACCENTS, EYES, HAIR, SKIN, Colour, Identity
from helios_jobs.data.scene import BACKGROUNDS, LIGHTS, Scene

Float = NDArray[np.float32]
Plane = NDArray[Any]
"""float32 in fact; numpy's stubs cannot follow precision through arithmetic with scalars."""
_PIXELS_AT_ONCE = 70_000
"""Frames are drawn in groups of about this many pixels, which keeps the planes in the cache."""
_DARK = (0.07, 0.05, 0.06)


@dataclass(frozen=True, slots=True)
class Motion:
    """What moves, one row a frame.

    Attributes:
        pose: `[F, 6]` yaw, pitch, roll in radians; x, y shift in half-frames; closed eyelids 0..1.
        mouth: `[F, 3]` open, wide, round.
        board: `[F, 4]` of the occluder or None: normal x, normal y, offset along it, half width.
        board_colour: its colour.
    """

    pose: Float
    mouth: Float
    board: Float | None
    board_colour: Colour


def _tinted(colour: Colour, shift: float, amount: float = 0.08) -> Colour:
    red, green, blue = (min(max(channel * (1 + amount * shift), 0.0), 1.0) for channel in colour)
    return red, green, blue


def _mixed(first: Colour, second: Colour, share: float) -> Colour:
    red, green, blue = (a + (b - a) * share for a, b in zip(first, second, strict=True))
    return red, green, blue


class _Canvas:
    """Colour planes `[3, F, S, S]` and the head's axes `[F, S, S]`."""

    def __init__(self, pose: Plane, size: int) -> None:
        self.size = size
        self.soft = 2.0 / size
        axis: Plane = ((np.arange(size, dtype=np.float32) + 0.5) * 2 / size - 1).astype(np.float32)
        self.x, self.y = axis[None, None, :], axis[None, :, None]
        parts: list[Plane] = [pose[:, i, None, None].astype(np.float32) for i in range(6)]
        self.yaw, self.pitch, roll, shift_x, shift_y, self.lids = parts
        self.centre_x, self.centre_y = shift_x, shift_y - 0.06
        cos, sin = np.cos(roll), np.sin(roll)
        dx, dy = self.x - self.centre_x, self.y - self.centre_y
        self.u, self.v = dx * cos + dy * sin, dy * cos - dx * sin
        self.planes = np.zeros((3, pose.shape[0], size, size), np.float32)
        self.cover = np.zeros((pose.shape[0], size, size), np.float32)

    def window(self, u: Plane, v: Plane, reach: float) -> tuple[slice, slice]:
        """Rows and columns that a feature around head points `u, v` (any frames) can touch."""
        reach += 0.1
        low_x, high_x = float((u + self.centre_x).min()) - reach, float((u + self.centre_x).max()) + reach
        low_y, high_y = float((v + self.centre_y).min()) - reach, float((v + self.centre_y).max()) + reach

        def clamp(value: float) -> int:
            return min(max(round((value + 1) * self.size / 2), 0), self.size)

        return slice(clamp(low_y), clamp(high_y)), slice(clamp(low_x), clamp(high_x))

    def blend(self, alpha: Plane, colour: Sequence[float | Plane], where: tuple[slice, slice] | None = None) -> None:
        """Put a colour (or three planes of it) over what is there."""
        rows, columns = where or (slice(None), slice(None))
        for plane, value in zip(self.planes, colour, strict=True):
            view = plane[:, rows, columns]
            view += alpha * (value - view)

    def edge(self, distance: Plane) -> Plane:
        """Coverage of the inside (negative distance) with a ramp one pixel wide."""
        return np.clip(0.5 - np.asarray(distance) / self.soft, 0.0, 1.0)

    def ellipse(self, u: Plane, v: Plane, radius_u: Plane | float, radius_v: Plane | float) -> Plane:
        radius = np.sqrt((u / radius_u) ** 2 + (v / radius_v) ** 2)
        return self.edge((radius - 1) * np.minimum(radius_u, radius_v))


class _Painter:
    """One person on one canvas."""

    def __init__(self, person: Identity, place: Scene, motion: Motion, size: int) -> None:
        self.person, self.place, self.motion = person, place, motion
        self.canvas = _Canvas(motion.pose, size)
        self.skin = _tinted(SKIN[person.skin], person.skin_shift)
        self.hair = _tinted(HAIR[person.hair], person.hair_shift, 0.2)
        self.mouth = [motion.mouth[:, i, None, None] for i in range(3)]

    def on_head(self, longitude: float, latitude: float) -> tuple[Plane, Plane, Plane]:
        """Where a point of the head is, `[F, 1, 1]` each: u, v and how much it faces the viewer (cosine)."""
        canvas, person = self.canvas, self.person
        turn, tilt = longitude + canvas.yaw, latitude + canvas.pitch * 0.8
        u = person.face_width * np.sin(turn) * np.cos(latitude * 0.6)
        return u.astype(np.float32), (person.face_height * np.sin(tilt)).astype(np.float32), np.cos(turn)

    def paint(self) -> None:
        self._background()
        self._hair_behind()
        self._body()
        self._face()
        self._marks()
        self._nose()
        self._mouth()
        for side in (-1, 1):
            self._eye(side)
        self._hair_in_front()
        if self.person.glasses != "no":
            self._glasses()
        self._light()
        self._board()

    def _background(self) -> None:
        canvas, place = self.canvas, self.place
        base = BACKGROUNDS[place.background]
        x, y = canvas.x[0], canvas.y[0]
        turn = np.pi * place.scale
        wave_x, wave_y = np.sin(turn * x + 6.28 * place.phase), np.sin(turn * y + 1.0)
        if place.pattern == "striped":
            field = np.clip(wave_x * 4, -1, 1) + 0 * y
        elif place.pattern == "checked":
            field = np.clip(wave_x * wave_y * 6, -1, 1)
        elif place.pattern == "dotted":
            field = np.clip((wave_x * wave_y - 0.45) * 8, -1, 1)
        elif place.pattern == "shaded":
            field = np.tanh(1.5 * (y + 0.6 * x * np.cos(6.28 * place.phase)))
        else:
            field = np.zeros((canvas.size, canvas.size), np.float32)
        shade = (1 + 0.45 * place.contrast * field) * (1.03 - 0.1 * (x**2 + y**2))
        for plane, value in zip(canvas.planes, base, strict=True):
            plane[:] = (value * shade).astype(np.float32)

    def _hair_behind(self) -> None:
        canvas, person = self.canvas, self.person
        wide, high = person.face_width, person.face_height
        puff = 0.05 + 0.08 * person.hair_volume
        drop = {"bald": None, "short": None, "bob": 0.42, "long": 1.15}[person.hair_length]
        if drop is None:
            return
        shift = -0.06 * np.sin(canvas.yaw)
        u = canvas.u - shift
        above = canvas.ellipse(u, canvas.v + 0.04, wide + puff, high + puff)
        side = np.abs(u) - (wide + puff) * (1.0 - 0.06 * np.maximum(canvas.v, 0))
        below = canvas.edge(np.maximum(side, np.maximum(canvas.v - drop, -canvas.v)))
        alpha = np.maximum(above, below)
        canvas.blend(alpha, _mixed(self.hair, _DARK, 0.3))
        canvas.cover = np.maximum(canvas.cover, alpha)

    def _body(self) -> None:
        canvas, person, place = self.canvas, self.person, self.place
        where = (slice(int(canvas.size * 0.58), canvas.size), slice(0, canvas.size))
        x = canvas.x - canvas.centre_x * 0.5
        y = canvas.y[:, where[0]] - canvas.centre_y * 0.3
        neck = canvas.edge(np.maximum(np.abs(x) - person.face_width * 0.45, 0.3 - y))
        canvas.blend(neck, _mixed(self.skin, _DARK, 0.22), where)
        shirt = canvas.ellipse(x, y - 1.34, 0.92, 0.62)
        collar = canvas.ellipse(x, y - 0.72, person.face_width * 0.5, 0.17)
        colour = _tinted(ACCENTS[place.shirt], place.shirt_shift, 0.15)
        canvas.blend(shirt * (1 - collar), colour, where)
        view = canvas.cover[:, where[0]]
        np.maximum(view, np.maximum(neck, shirt), out=view)

    def _face(self) -> None:
        canvas, person, place = self.canvas, self.person, self.place
        wide, high = person.face_width, person.face_height
        shift = 0.10 * np.sin(canvas.yaw)
        for side in (-1.0, 1.0):
            ear = canvas.ellipse(canvas.u - side * wide - shift * -0.8, canvas.v - 0.05, 0.07, 0.12)
            canvas.blend(ear, _mixed(self.skin, (0.5, 0.1, 0.1), 0.15))
            canvas.cover = np.maximum(canvas.cover, ear)
        chin = np.clip(canvas.v / high, 0, 1.2)
        width = wide * (1 - person.jaw * chin**2)
        open_mouth = self.mouth[0] * 0.035 * person.talk_gain
        height = np.where(canvas.v > 0, high + open_mouth, high)
        along, down = canvas.u / width, canvas.v / height
        radius = np.sqrt(along**2 + down**2)
        alpha = canvas.edge((radius - 1) * wide)
        light = 1.02 + 0.10 * place.side * along - 0.05 * down - 0.13 * np.minimum(radius, 1.2) ** 4
        light = light + 0.05 * np.sin(canvas.yaw) * along
        canvas.blend(alpha, [light * channel for channel in self.skin])
        canvas.cover = np.maximum(canvas.cover, alpha)
        self.face_alpha = alpha
        if person.beard:
            stubble = np.clip((canvas.v - 0.2 * high - 0.25 * np.abs(canvas.u)) * 9, 0, 1) * alpha
            canvas.blend(stubble * person.beard, _mixed(self.hair, _DARK, 0.15))

    def _marks(self) -> None:
        canvas = self.canvas
        for longitude, colour in zip((-1.12, 1.12), self.person.marks, strict=True):
            if not colour:
                continue
            u, v, facing = self.on_head(longitude, 0.2)
            where = canvas.window(u, v, 0.14)
            rows, columns = where
            seen = np.maximum(facing, 0.02)
            spot = canvas.ellipse(
                canvas.u[:, rows, columns] - u, canvas.v[:, rows, columns] - v, 0.15 * seen + 0.004, 0.13
            )
            visible = np.clip((facing - 0.25) * 4, 0, 1).astype(np.float32)
            canvas.blend(spot * visible * self.face_alpha[:, rows, columns], ACCENTS[colour], where)

    def _nose(self) -> None:
        canvas, person = self.canvas, self.person
        u, v, _ = self.on_head(0.0, 0.12)
        u = u * 1.25
        where = canvas.window(u, v, 0.2)
        rows, columns = where
        du, dv = canvas.u[:, rows, columns] - u, canvas.v[:, rows, columns] - v
        size = person.nose
        canvas.blend(canvas.ellipse(du, dv - 0.05, 0.055 * size, 0.035) * 0.5, _mixed(self.skin, _DARK, 0.5), where)
        canvas.blend(canvas.ellipse(du, dv + 0.03, 0.025 * size, 0.09) * 0.35, _mixed(self.skin, (1, 1, 1), 0.6), where)

    def _mouth(self) -> None:
        canvas, person = self.canvas, self.person
        opened, spread, rounded = self.mouth
        u, v, facing = self.on_head(0.0, 0.52)
        half = person.mouth_width * (1 + 0.28 * spread - 0.38 * rounded) * (0.35 + 0.65 * np.maximum(facing, 0))
        gap = 0.20 * opened * person.talk_gain
        lip = 0.026 + 0.024 * person.lips + 0.014 * rounded
        where = canvas.window(u, v, 0.36)
        rows, columns = where
        du, dv = canvas.u[:, rows, columns] - u, canvas.v[:, rows, columns] - v - 0.35 * gap
        dv = dv + (0.9 - 0.6 * opened) * du**2  # corners rise: a friendly face at rest
        colour = _mixed(self.skin, (0.78, 0.10, 0.16), 0.42 + 0.4 * person.lips)
        canvas.blend(canvas.ellipse(du, dv, half + 0.4 * lip, gap + lip), _mixed(colour, _DARK, 0.06), where)
        inside = canvas.ellipse(du, dv, half * 0.88, np.maximum(gap, 0.007))
        canvas.blend(inside, (0.16, 0.02, 0.04), where)
        teeth = inside * canvas.edge(dv + gap * (0.62 - 0.3 * person.teeth))
        canvas.blend(teeth * np.clip(gap * 14, 0, 1), (0.97, 0.96, 0.92), where)
        tongue = inside * canvas.ellipse(du, dv - gap * 0.75, half * 0.55, gap * 0.42 + 0.004)
        canvas.blend(tongue * np.clip(gap * 10 - 0.3, 0, 1), (0.80, 0.30, 0.32), where)

    def _eye(self, side: int) -> None:
        canvas, person = self.canvas, self.person
        u, v, facing = self.on_head(side * person.eye_spacing * 1.15, -0.16)
        seen = np.clip(facing, 0.12, 1)
        wide = person.eye_size * seen
        where = canvas.window(u, v, 0.32)
        rows, columns = where
        du, dv = canvas.u[:, rows, columns] - u, canvas.v[:, rows, columns] - v
        visible = np.clip(facing * 5, 0, 1).astype(np.float32) * self.face_alpha[:, rows, columns]
        tall = person.eye_size * 0.72 * (1 - canvas.lids)
        lid = canvas.ellipse(du, dv, wide + 0.022, np.maximum(tall, 0.004) + 0.018)
        canvas.blend(lid * visible, _mixed(self.skin, _DARK, 0.62), where)
        white = canvas.ellipse(du, dv, wide, np.maximum(tall, 0.001)) * visible * (1 - canvas.lids)
        canvas.blend(white, (0.97, 0.97, 0.98), where)
        gaze = du - 0.22 * wide * np.sin(canvas.yaw)
        iris = person.eye_size * 0.62
        canvas.blend(white * canvas.ellipse(gaze, dv, iris * seen, iris), EYES[person.eyes], where)
        canvas.blend(white * canvas.ellipse(gaze, dv, iris * 0.5 * seen, iris * 0.5), _DARK, where)
        canvas.blend(white * canvas.ellipse(gaze + 0.03 * seen, dv + 0.03, 0.022 * seen, 0.022), (1.0, 1.0, 1.0), where)
        slant = dv + 0.165 + side * person.brow_tilt * du * 0.8 + 1.3 * du**2
        brow = canvas.ellipse(du, slant, wide * 1.35, person.brow)
        canvas.blend(brow * visible, _mixed(self.hair, _DARK, 0.45), where)

    def _hair_in_front(self) -> None:
        canvas, person = self.canvas, self.person
        wide, high = person.face_width, person.face_height
        puff = 0.035 + 0.08 * person.hair_volume
        shift = 0.04 * np.sin(canvas.yaw)
        u = canvas.u - shift
        cap = canvas.ellipse(u, canvas.v + 0.02, wide + puff, high + puff)
        line = -high * (0.60 - 0.12 * person.fringe) + high * np.sin(canvas.pitch) * 0.5
        if person.hair_length != "bald":
            curl = 0.9 if person.hair_length == "short" else 1.5
            across = canvas.u - person.face_width * np.sin(canvas.yaw) * 0.6
            edge = canvas.v - line - curl * across**2 - 0.22 * person.part * across
            hair = cap * canvas.edge(edge)
            gloss = 1 + 0.16 * np.sin(14 * u + 5 * person.part) * (canvas.v < 0) + 0.12 * self.place.side * u / wide
            canvas.blend(hair, [gloss * channel for channel in self.hair])
            canvas.cover = np.maximum(canvas.cover, hair)
        if person.headwear == "none":
            return
        colour = ACCENTS[person.headwear_colour]
        top = canvas.v + high * 0.52 - high * np.sin(canvas.pitch) * 0.4 - 0.16 * u**2
        cloth = canvas.ellipse(u, canvas.v + 0.05, wide + puff + 0.03, high + puff + 0.05) * canvas.edge(top)
        if person.headwear == "band":
            cloth = cloth * canvas.edge(-0.17 - top)
        ribs = 1 + 0.08 * np.sin(26 * u)
        canvas.blend(cloth, [ribs * channel for channel in colour])
        canvas.cover = np.maximum(canvas.cover, cloth)

    def _glasses(self) -> None:
        canvas, person = self.canvas, self.person
        colour = ACCENTS[person.glasses_colour]
        points = [self.on_head(side * person.eye_spacing * 1.15, -0.14) for side in (-1, 1)]
        (left, left_v, _), (right, _, _) = points
        where = canvas.window((left + right) / 2, left_v, 0.34 + self.person.eye_spacing * 0.6)
        rows, columns = where
        u, v = canvas.u[:, rows, columns], canvas.v[:, rows, columns]
        thick = 0.024
        frame = np.zeros_like(u)
        for centre_u, centre_v, facing in points:
            du, dv = u - centre_u, v - centre_v
            seen = np.clip(facing, 0.15, 1)
            radius = 0.165
            if person.glasses == "round":
                distance = (np.sqrt((du / seen) ** 2 + dv**2) - radius) * seen
            else:
                distance = np.maximum(np.abs(du) - radius * seen, np.abs(dv) - radius * 0.78)
            frame = np.maximum(frame, canvas.edge(np.abs(distance) - thick) * np.clip(facing * 6, 0, 1))
            canvas.blend(canvas.edge(distance) * 0.12, (0.85, 0.93, 1.0), where)
        bridge = np.maximum(np.abs(u - (left + right) / 2) - 0.06, np.abs(v - left_v + 0.03) - thick * 0.7)
        canvas.blend(np.maximum(frame, canvas.edge(bridge)), colour, where)

    def _light(self) -> None:
        canvas, place = self.canvas, self.place
        slope = (1 + 0.16 * place.side * canvas.x[0]) * place.brightness
        for plane, tint in zip(canvas.planes, LIGHTS[place.light], strict=True):
            np.multiply(plane, slope * tint, out=plane)

    def _board(self) -> None:
        canvas, board = self.canvas, self.motion.board
        if board is None:
            return
        normal_x, normal_y, offset, half = (board[:, i, None, None] for i in range(4))
        across = canvas.x * normal_x + canvas.y * normal_y - offset
        alpha = canvas.edge(np.abs(across) - half)
        grain = 0.9 + 0.1 * np.sin(9 * across)
        canvas.blend(alpha, [grain * channel for channel in self.motion.board_colour])
        canvas.cover = canvas.cover * (1 - alpha)


def face_boxes(person: Identity, pose: Float, size: int) -> Float:
    """Box around the face (chin to crown, ear to ear) in pixels, `[F, 4]` as x0, y0, x1, y1, clipped to the frame."""
    x, y = pose[:, 3], pose[:, 4] - 0.06
    wide, high = person.face_width + 0.06, person.face_height + 0.05
    box = np.stack([x - wide, y - high, x + wide, y + high], axis=1)
    return np.clip((box + 1) * size / 2, 0, size).astype(np.float32)


def draw(
    person: Identity, place: Scene, motion: Motion, *, size: int, supersample: int = 2
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Frames uint8 `[F, size, size, 3]` and the mask bool `[F, size, size]` of the person where nothing hides it."""
    count, fine = motion.pose.shape[0], size * supersample
    group = max(1, _PIXELS_AT_ONCE // fine**2)
    frames = np.empty((count, size, size, 3), np.uint8)
    mask = np.empty((count, size, size), np.bool_)
    for start in range(0, count, group):
        part = slice(start, start + group)
        board = None if motion.board is None else motion.board[part]
        painter = _Painter(
            person, place, Motion(motion.pose[part], motion.mouth[part], board, motion.board_colour), fine
        )
        painter.paint()
        planes = _pooled(painter.canvas.planes, supersample)
        frames[part] = np.moveaxis(np.clip(planes * 255 + 0.5, 0, 255).astype(np.uint8), 0, -1)
        mask[part] = _pooled(painter.canvas.cover, supersample) > 0.5
    return frames, mask


def _pooled(planes: Plane, factor: int) -> Plane:
    total = np.zeros_like(planes[..., ::factor, ::factor])
    for row in range(factor):
        for column in range(factor):
            total += planes[..., row::factor, column::factor]
    return total / factor**2
