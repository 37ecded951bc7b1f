"""A person's reference, cached on two levels: what a codec and detectors found, and what a network made of it.

Level 1 belongs to the identity and outlives models; level 2, the keys and values of all layers, belongs to one version
of one network (Avatar V: references never see the generation, so both hold for all steps, chunks and prompts).
"""

import hashlib
import json
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from helios_model import tensor_file
from helios_model.attention import KeyValue
from helios_model.dit import ReferenceCache, VideoRefDiT
from helios_model.weights import BundleError, all_finite

_KIND = "helios reference context 1"
_versions: WeakKeyDictionary[VideoRefDiT, tuple[tuple[object, ...], str]] = WeakKeyDictionary()


class ReferenceMismatchError(ValueError):
    """Keys and values that another network, or other content, made; or none at all."""


class Size(NamedTuple):
    """Bytes of a reference, by level."""

    identity: int
    cache: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Level 1: what is known of a person without a network.

    Attributes:
        latents_BCTHW: reference frames through the video codec.
        boxes_BT4, valid_BT: face boxes of the latent frames in pixels, and whether there is a face
            (`selection.latent_boxes`).
        audio_BTLK: features of the reference video's own sound.
        keep_BK: tokens that are not dropped (`selection.kept_indices`).
    """

    latents_BCTHW: Tensor
    boxes_BT4: Tensor | None = None
    valid_BT: Tensor | None = None
    audio_BTLK: Tensor | None = None
    keep_BK: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """What is there, by name."""
        named = {part.name: getattr(self, part.name) for part in fields(self)}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def digest(self) -> str:
        """SHA-256 of names, types, shapes and bytes."""
        return _digest(self.tensors())


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceContext:
    """A person for a network: level 1, and level 2 once `encode` has run.

    Attributes:
        content: digest of the identity.
        version: of the network that made `cache` (`model_version`).
    """

    identity: Identity
    content: str
    version: str | None = None
    cache: ReferenceCache | None = None

    @classmethod
    def of(cls, identity: Identity) -> "ReferenceContext":
        return cls(identity=identity, content=identity.digest())

    @torch.no_grad()
    def encode(self, model: VideoRefDiT) -> "ReferenceContext":
        """The same person with level 2 of this network.

        Raises:
            ValueError: the network does not take such references; the message names the tensor.
        """
        device, person = next(model.parameters()).device, self.identity
        cache = model.encode_reference(
            person.latents_BCTHW.to(device),
            audio_BTLK=None if person.audio_BTLK is None else person.audio_BTLK.to(device),
            keep_BK=None if person.keep_BK is None else person.keep_BK.to(device),
        )
        return replace(self, version=model_version(model), cache=cache)

    def to(self, device: torch.device | str) -> "ReferenceContext":
        """The same person with both levels on `device`; what is there already is not copied."""
        moved = {name: tensor.to(device) for name, tensor in self.identity.tensors().items()}
        cache = None if self.cache is None else self.cache.to(device)
        return replace(self, identity=replace(self.identity, **moved), cache=cache)

    def keys_for(self, model: VideoRefDiT) -> ReferenceCache:
        """Level 2, if this very network made it; where it lies, which `to` changes.

        Raises:
            ReferenceMismatchError: it did not, or nobody did.
        """
        version = model_version(model)
        if self.cache is None:
            raise ReferenceMismatchError(f"reference {self.content[:12]} was not encoded yet: call encode(model)")
        if self.version != version:
            raise ReferenceMismatchError(
                f"reference {self.content[:12]} was encoded by model version {self.version}, this one is {version}"
            )
        return self.cache

    def nbytes(self) -> Size:
        return Size(
            sum(tensor.nbytes for tensor in self.identity.tensors().values()),
            0 if self.cache is None else self.cache.nbytes,
        )

    def save(self, path: Path) -> None:
        """Write it, with level 2 where it is there, as one safetensors file.

        Raises:
            OSError: nothing was changed.
        """
        tensors = {f"identity.{name}": tensor for name, tensor in self.identity.tensors().items()}
        words = {"content": self.content}
        if self.cache is not None and self.version is not None:
            words["version"] = self.version
            for index, pair in enumerate(self.cache.layers):
                tensors |= {f"layers.{index}.k": pair.k_BMHD, f"layers.{index}.v": pair.v_BMHD}
        tensor_file.write(Path(path), _KIND, tensors, words)

    @classmethod
    def load(cls, path: Path, *, content: str | None = None) -> "ReferenceContext":
        """What `save` wrote, bit for bit, on the CPU.

        Args:
            content: the digest that the caller expects.

        Raises:
            BundleError: the file is missing, cut short, holds something else, or keys or values that are no numbers.
            ReferenceMismatchError: it holds another person than `content`.
        """
        path = Path(path)
        tensors, words = tensor_file.read(path, _KIND)
        parts = {name.partition(".")[2]: tensor for name, tensor in tensors.items() if name.startswith("identity.")}
        try:
            identity = Identity(**parts)
            layers = tuple(
                KeyValue(tensors[f"layers.{index}.k"], tensors[f"layers.{index}.v"])
                for index in range((len(tensors) - len(parts)) // 2)
            )
        except (KeyError, TypeError) as error:
            raise BundleError(f"{path} does not hold a reference: {error}") from error
        found = identity.digest()
        if found != words.get("content"):
            raise BundleError(f"{path} is damaged: its identity is {found}, it says {words.get('content')}")
        if content is not None and content != found:
            raise ReferenceMismatchError(f"{path} holds reference {found[:12]}, expected {content[:12]}")
        for name, tensor in tensors.items():
            if name.startswith("layers.") and not all_finite(tensor):
                raise BundleError(f"{path} is damaged: {name} holds NaN or infinity")
        cache = ReferenceCache(layers) if layers else None
        return cls(identity=identity, content=found, version=words.get("version"), cache=cache)


class ReferenceStore:
    """Encoded references in memory, the least recently used leave first; for many threads."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._held: OrderedDict[tuple[str, str], ReferenceContext] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._held)

    @property
    def nbytes(self) -> int:
        with self._lock:
            return self._total()

    def encoded(self, context: ReferenceContext, model: VideoRefDiT) -> ReferenceContext:
        """The context with this network's level 2: the stored one, or encoded now and stored."""
        found = self.get(model_version(model), context.content)
        if found is None:
            found = context.encode(model)
            self.put(found)
        return found

    def get(self, version: str, content: str) -> ReferenceContext | None:
        with self._lock:
            found = self._held.get((version, content))
            if found is not None:
                self._held.move_to_end((version, content))
            return found

    def put(self, context: ReferenceContext) -> None:
        """Store it, unless it alone is larger than the store.

        Raises:
            ReferenceMismatchError: it has no level 2.
        """
        if context.version is None:
            raise ReferenceMismatchError(f"reference {context.content[:12]} was not encoded yet: call encode(model)")
        key = (context.version, context.content)
        with self._lock:
            self._held.pop(key, None)
            if sum(context.nbytes()) > self.max_bytes:
                return
            self._held[key] = context
            while self._total() > self.max_bytes:
                self._held.popitem(last=False)

    def _total(self) -> int:
        return sum(sum(context.nbytes()) for context in self._held.values())


def model_version(model: VideoRefDiT) -> str:
    """SHA-256 of config, precision, this rank's share of the heads, and weights.

    Weights are read again when one is another tensor in memory, or torch counted a write to it. Writes through `.data`,
    numpy or a pointer are not counted: call `forget` after them.

    Where weights are sharded it names this rank's shard, as the keys and values belong to this rank.
    """
    weights: dict[str, Tensor] = dict(model.state_dict())
    state = tuple(_state(tensor) for tensor in weights.values())
    known = _versions.get(model)
    if known is None or known[0] != state:
        known = (state, _digest(weights))
        _versions[model] = known
    share = None if model.ulysses is None else [model.ulysses.rank, model.ulysses.degree]
    about = json.dumps([model.config.to_json(), str(model.compute_dtype or model.dtype), share], sort_keys=True)
    return hashlib.sha256(f"{known[1]}{about}".encode()).hexdigest()


def forget(model: VideoRefDiT) -> None:
    """Have `model_version` read this network's weights again."""
    _versions.pop(model, None)


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _state(tensor: Tensor) -> object:
    """Equals what it was before as long as nobody wrote to the tensor."""
    if tensor.is_inference():
        return object()  # these do not count what is written to them: nothing is known to be the same
    writes = tensor._version  # noqa: SLF001 - torch's own count; of a shard only the tensor around it keeps one
    return _local(tensor).data_ptr(), writes, tensor.device, tensor.dtype


def _digest(tensors: dict[str, Tensor]) -> str:
    with ThreadPoolExecutor() as pool:  # hashing leaves the interpreter to others
        lines = pool.map(_line, sorted(tensors), [tensors[name] for name in sorted(tensors)])
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def _line(name: str, tensor: Tensor) -> str:
    bytes_N = _local(tensor.detach()).cpu().contiguous().reshape(-1).view(torch.uint8)
    return f"{name} {tensor.dtype} {list(tensor.shape)} {hashlib.sha256(bytes_N.numpy().data).hexdigest()};"
