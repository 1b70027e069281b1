"""Conversation: the other speaker speaks, the character listens, and answers after a pause.

When speech begins and ends is told by WebRTC's voice activity detection. What is answered is up to
a hook, so that anyone can put recognition, a language model and speech synthesis behind it.

Shape letters: A samples, S = 800 samples of one step.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from envs.play.voice.sentences import in_steps
from envs.play.voice.voices import Voice
from midas_world.data.sound import SAMPLE_RATE_HZ, SAMPLES_PER_STEP, SoundError, to_int16
from midas_world.packages import needs

Respond = Callable[[np.ndarray, int], np.ndarray]
"""Takes what the other one said, (A,) int16, and its rate, 16000; returns the answer likewise."""

_FRAME = 160  # 10 ms, one of those that WebRTC takes
_VOICED_SHARE = 0.5  # of the frames of a step
_LEAST_STEPS = 6  # of speech, a short "yes"; less is a cough
_PAUSE_STEPS = 10  # after which somebody has finished
_INTERRUPT_STEPS = 4  # of speech into an answer: it ends
_STEP_MS = 1000 * SAMPLES_PER_STEP // SAMPLE_RATE_HZ


class Conversation:
    """The character's own voice in a conversation, and the other one's, heard on its way.

    Args:
        respond: Gives the answer; called in a thread, since it may take its time.

    Attributes:
        latencies_ms: Of each answer: from the end of speech to its first sound.

    Raises:
        SoundError: webrtcvad-wheels is not installed.
    """

    def __init__(self, other: Voice, respond: Respond) -> None:
        with needs("a conversation", extra="voice", error=SoundError):
            import webrtcvad
        self.message = ""
        self.latencies_ms: list[int] = []
        self.listens = False
        self.other = _Overheard(other)
        self._respond = respond
        self._detector = webrtcvad.Vad(2)
        self._thinker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="respond")
        self._heard: list[np.ndarray] = []
        self._num_voiced = self._num_quiet = 0
        self._answer: Future[np.ndarray] | None = None
        self._steps: Iterator[np.ndarray] | None = None

    def step(self, *, talks: bool) -> np.ndarray | None:
        """Return the next (S,) int16 of an answer, after the other voice's step; else silence."""
        self._listen(self.other.last)
        if self._answer is not None and self._answer.done():
            self._begin_answer(self._answer)
        samples = next(self._steps, None) if self._steps is not None else None
        if samples is None:
            self._steps = None
            return np.zeros(SAMPLES_PER_STEP, np.int16)
        return samples

    def close(self) -> None:
        """Wait for no answer any more; may be called twice."""
        self._thinker.shutdown(wait=False, cancel_futures=True)

    def _listen(self, samples: np.ndarray | None) -> None:
        """Follow what the other one says, and ask for an answer once it has finished."""
        if samples is not None and self._is_voiced(samples):
            self._num_voiced += 1
            self._num_quiet = 0
        else:
            self._num_quiet += 1
        if self._num_voiced and samples is not None:
            self._heard.append(samples)
        if self._num_voiced >= _INTERRUPT_STEPS and not self._num_quiet:
            self._steps = self._answer = None  # nobody is talked over
        if self._num_voiced and self._num_quiet >= _PAUSE_STEPS:
            if self._num_voiced >= _LEAST_STEPS:
                heard = np.concatenate(self._heard)
                self._answer = self._thinker.submit(self._respond, heard, SAMPLE_RATE_HZ)
            self._heard, self._num_voiced = [], 0

    def _begin_answer(self, answer: Future[np.ndarray]) -> None:
        self._answer = None
        # The program behind the hook is not ours: whatever it was, the player must hear of it.
        if (error := answer.exception()) is not None:
            self.message = f"there is no answer: {error}"
            return
        samples = np.asarray(answer.result())
        if samples.ndim != 1 or samples.dtype.kind not in "if":
            self.message = (
                f"an answer must be mono sound, (A,) int16 or float, got {samples.shape} "
                f"{samples.dtype}"
            )
            return
        is_whole = samples.dtype.kind == "i"
        self._steps = in_steps(samples.astype(np.int16) if is_whole else to_int16(samples))
        self.latencies_ms.append(_STEP_MS * self._num_quiet)
        self.message = f"answered {self.latencies_ms[-1]} ms after the end of speech"

    def _is_voiced(self, samples: np.ndarray) -> bool:
        frames = samples.reshape(-1, _FRAME)
        voiced = [self._detector.is_speech(frame.tobytes(), SAMPLE_RATE_HZ) for frame in frames]
        return float(np.mean(voiced)) >= _VOICED_SHARE


class _Overheard:
    """A voice that remembers the step that it gave last, and is silent after its end."""

    def __init__(self, voice: Voice) -> None:
        self._voice = voice
        self.message = ""
        self.last: np.ndarray | None = None

    @property
    def listens(self) -> bool:
        return self._voice.listens

    def step(self, *, talks: bool) -> np.ndarray:
        self.last = self._voice.step(talks=talks)
        self.message, self._voice.message = self._voice.message or self.message, ""
        return np.zeros(SAMPLES_PER_STEP, np.int16) if self.last is None else self.last

    def close(self) -> None:
        self._voice.close()
