"""From actions to conditions: the pose, text and audio of each step of Stage.

The teacher and the learned world use the same conditioner, so it may depend on actions, the scene,
a prompt and its own random stream only, never on what happens in the world. It draws nothing.
"""

from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from envs.stage.controller import ACTIONS, RUN_SPEED, WORLD_LENGTH, PoseController
from envs.stage.looks import OUTFITS
from envs.stage.moods import PLACES, TIMES, WEATHERS
from envs.stage.scene import NUM_TEXT_VARIANTS, Scene, describe
from envs.stage.skeleton import smooth
from envs.stage.speech import NOTHING, NUM_MELS, SpeechTrack, load_speech_bank, loudness
from envs.stage.words import scene_from_text, understand
from midas_world.teachers.words import PROMPT_BYTES, clean_prompt
from midas_world.types import StepConditions

POSE_SIZE = 39
AUDIO_SIZE = 2 * NUM_MELS
CLOCK_PERIOD = 16  # steps: coins turn, fires flicker and weather falls in it, once or twice

_PAUSE_STEPS = 6
_GAP_STEPS = (60, 200)
_NOD_STEPS = 14
_NOD_PX = 3.5
_HEAD = 0
_TALK = ACTIONS.index("talk")
_LOUD = 0.7  # about the loudest that speech gets
_HEARD, _PAUSE = 0.1, 0.25  # how loud another's speech is that is listened to, and at a pause
_ATTENTIVE = 0.1  # how much it looks at another whose face is seen up close


def _follow(level: float, target: float, *, rise: float, fall: float) -> float:
    """Return a level moved a share of the way to its target, another one up than down."""
    return level + (rise if target > level else fall) * (target - level)


class StageConditioner:
    """Turns the history of actions into conditions, one step at a time.

    The pose, (39,) float32:

    | entries | meaning                                                            |
    |---------|--------------------------------------------------------------------|
    | 0 to 29 | 15 keypoints in the frame, each x / 160 - 1 and y / 96 - 1         |
    | 30      | facing, 1 or -1                                                    |
    | 31      | velocity along x, as a share of running                            |
    | 32      | height above the ground, as a share of 64 px                       |
    | 33, 34  | how far the eyes are open; gaze                                    |
    | 35      | crouching                                                          |
    | 36, 37  | the camera's place in the loop, the clock in its period; shares    |
    | 38      | 1 where the face is shown up close as well, in a portrait          |

    Attributes:
        controller: The pose controller; its x is the camera.
        scene: What the words speak of.
        mouth_open: 0 closed to 1 wide, from the loudness of the character's own voice.
        spoken: (2, 2) int64: sentence of the bank and its step that the character and the other
            speaker say at this frame; sentence -1 is silence, or live audio.
        clock: Steps since the start, across states; what turns, flickers or falls goes by it.
        pose_entries: Entries of the pose that have names, and their units.
    """

    pose_entries: ClassVar[Mapping[str, tuple[int, float]]] = {
        "facing": (30, 1.0),
        "velocity": (31, RUN_SPEED),
        "height": (32, 64.0),
    }

    def __init__(self) -> None:
        bank = load_speech_bank()
        self.controller = PoseController()
        self._own = SpeechTrack(bank)
        self._other = SpeechTrack(bank)
        self.spoken = np.array((NOTHING, NOTHING))
        self.reset(scene=Scene(), rng=np.random.default_rng(0))

    def reset(
        self,
        *,
        rng: np.random.Generator,
        description: str = "",
        scene: Scene | None = None,
        x: float = 0.0,
        facing: int = 1,
    ) -> StepConditions:
        """Start anew and return the conditions of the first frame.

        Args:
            description: What the world looks like, in words.
            scene: The same as a value.
            rng: Seeds the wording and the voices; drawn from here only.
            x: World x in px.
            facing: 1 right, -1 left.
        """
        self.controller.reset(x=x, facing=facing)
        self.scene = scene_from_text(description, Scene()) if scene is None else scene
        self.prompt: str | None = None
        self.clock = 0
        self.mouth_open = 0.0
        self._listening = self._syllable = self._phrase = self._heard = 0.0
        self._action = 0
        self._was_talking = False
        self._nod_step = 0
        self.spoken = np.array((NOTHING, NOTHING))
        self._audio = np.zeros(AUDIO_SIZE, np.float32)
        self._seed, self._variant = (int(n) for n in rng.integers((2**31, NUM_TEXT_VARIANTS)))
        self._turns = [0, 0]
        self._own.stop()
        self._play_next(self._other)
        return self.conditions()

    def step(
        self,
        action: int,
        *,
        own_voice: np.ndarray | None = None,
        other_voice: np.ndarray | None = None,
    ) -> StepConditions:
        """Advance by one step and return the conditions of the frame that it leads to.

        Args:
            action: Index into ACTIONS.
            own_voice: (20,) features of live audio that replace the character's own voice.
            other_voice: (20,) features of live audio that replace the other speaker's voice.

        Raises:
            ValueError: A voice has another shape, or is not finite; nothing has changed.
        """
        for voice in (own_voice, other_voice):
            if voice is not None and (voice.shape != (NUM_MELS,) or not np.isfinite(voice).all()):
                raise ValueError(f"a voice must be ({NUM_MELS},) finite features, got {voice}")
        own = self._step_own_voice(talks=action == _TALK) if own_voice is None else own_voice
        if other_voice is None and self._other.is_over:
            self._play_next(self._other)
        other = self._other.step() if other_voice is None else other_voice
        self._follow_voices(loudness(own), loudness(other), talks=action == _TALK)
        self.controller.step(action, hands=self.hands)
        self.clock += 1
        self._action = action
        said = self._own.said if own_voice is None else NOTHING
        replied = self._other.said if other_voice is None else NOTHING
        self.spoken = np.array((said, replied))
        self._audio = np.concatenate((own, other), dtype=np.float32)
        return self.conditions()

    @property
    def language(self) -> str:
        """Code of the language of what the character says; empty while it says nothing."""
        track = self._own
        return track.bank.languages[track.sentence] if track.is_speaking else ""

    @property
    def hands(self) -> tuple[float, float]:
        """How far near and far hand are raised, 0 to 1: by syllables, and by the whole phrase."""
        beat = self._syllable + 0.6 * (self._syllable - self._phrase)
        return min(1.0, max(0.0, beat)), self._phrase

    @property
    def brows(self) -> float:
        """How far the brows are raised, 0 to 1: by loud syllables, for which the mouth is wide."""
        return smooth((self.mouth_open - 0.6) / 0.4)

    @property
    def gaze(self) -> float:
        """How much the character looks at the other speaker, 0 to 1."""
        return self._listening

    @property
    def nod(self) -> float:
        """How far the head is lowered in listening, 0 to 1."""
        swing = 0.5 - 0.5 * np.cos(2.0 * np.pi * self._nod_step / _NOD_STEPS)
        return float(self._listening * swing)

    @property
    def shows_face(self) -> bool:
        """Whether its face is seen up close: while it talks or listens."""
        return self.controller.talking or self._listening > _ATTENTIVE

    @property
    def action_name(self) -> str:
        """The name of the last action; "idle" at the first frame."""
        return ACTIONS[self._action]

    def keypoints(self) -> np.ndarray:
        """Return (15, 2) float32 screen px: the controller's, the head lowered by a nod."""
        keypoints = self.controller.keypoints()
        if self._listening > 0.0:
            keypoints = keypoints.copy()
            keypoints[_HEAD] += (self.nod * self.controller.facing * 0.6, self.nod * _NOD_PX)
        return keypoints

    def conditions(self) -> StepConditions:
        """Return the conditions of the present frame; changes nothing."""
        return StepConditions(pose=self._pose(), text=self._text(), audio=self._audio.copy())

    def set_scene(self, scene: Scene) -> None:
        """Let the words speak of another scene from now on."""
        self.scene = scene

    def set_prompt(self, text: str | None) -> None:
        """Change the scene to what is understood of a player's words; see `words.understand`.

        What they leave open stays as it is, so that prompts add up. None takes the words back.

        Raises:
            ValueError: Nothing of the text is understood, or it has more than PROMPT_BYTES bytes;
                the scene stays as it is.
        """
        text = clean_prompt(text) if text else ""
        if text:
            self.scene, _ = understand(text, self.scene)
        self.prompt = text or None

    def understand(self, text: str) -> str:
        """Return what of a player's words Stage can show, and what it did not understand.

        Raises:
            ValueError: As with `set_prompt`.
        """
        return understand(clean_prompt(text), self.scene)[1]

    def scene_after(self, prompt: str, present: str) -> str:
        """Return place, time of day, weather and outfit, in the words that Stage has for them."""
        return str(scene_from_text(prompt, scene_from_text(present, Scene())))

    def state(self) -> dict[str, np.ndarray]:
        """Return everything that changes, as numeric arrays of fixed shapes."""
        scene = self.scene
        names = (
            PLACES.index(scene.place),
            TIMES.index(scene.time_of_day),
            WEATHERS.index(scene.weather),
            OUTFITS.index(scene.outfit),
        )
        counters = (self._seed, self._variant, *self._turns, self._action, self._nod_step)
        prompt = np.zeros(PROMPT_BYTES, np.uint8)
        text = (self.prompt or "").encode()
        prompt[: len(text)] = np.frombuffer(text, np.uint8)
        return {
            "controller": self.controller.state(),
            "voices": np.concatenate((self._own.state(), self._other.state())),
            "counters": np.array((*counters, self._was_talking, self.clock), np.int64),
            "levels": np.array(
                (self.mouth_open, self._listening, self._syllable, self._phrase, self._heard)
            ),
            "audio": self._audio.copy(),
            "scene": np.array(names, np.int64),
            "prompt": prompt,
        }

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on exactly from what `state()` gave."""
        self.controller.load_state(state["controller"])
        self._own.load_state(state["voices"][:2])
        self._other.load_state(state["voices"][2:])
        counters = [int(value) for value in state["counters"]]
        self._seed, self._variant = counters[:2]
        self._turns = counters[2:4]
        self._action, self._nod_step = counters[4:6]
        self._was_talking = bool(counters[6])
        self.clock = counters[7]
        # Start states made when hands moved by themselves have the first two only.
        levels = np.zeros(5)
        levels[: len(state["levels"])] = state["levels"]
        self.mouth_open, self._listening, *rest = levels.tolist()
        self._syllable, self._phrase, self._heard = rest
        self._audio = np.array(state["audio"], np.float32)
        self.spoken = np.array((NOTHING, NOTHING))
        place, time_of_day, weather, outfit = (int(index) for index in state["scene"])
        self.scene = Scene(PLACES[place], TIMES[time_of_day], WEATHERS[weather], OUTFITS[outfit])
        self.prompt = bytes(state["prompt"].astype(np.uint8)).rstrip(b"\0").decode() or None

    def _follow_voices(self, own: float, other: float, *, talks: bool) -> None:
        """Move mouth, hands, gaze and head by how loud both voices are at this step."""
        self.mouth_open += 0.6 * (min(1.0, 1.7 * own) - self.mouth_open)
        loud = min(1.0, own / _LOUD)
        self._syllable = _follow(self._syllable, loud, rise=0.45, fall=0.35)
        self._phrase = _follow(self._phrase, loud, rise=0.15, fall=0.1)
        before = self._heard
        self._heard = _follow(before, min(1.0, other / _LOUD), rise=0.5, fall=0.35)
        if self._nod_step or before >= _PAUSE > self._heard:
            self._nod_step = (self._nod_step + 1) % _NOD_STEPS
        listens = not talks and (self._heard > _HEARD or self._nod_step > 0)
        self._listening += 0.25 * (listens - self._listening)

    def _step_own_voice(self, *, talks: bool) -> np.ndarray:
        """Advance the own voice, which speaks while the character talks; return its vector."""
        if not talks:
            self._own.stop()
        elif not self._was_talking or self._own.is_over:
            self._play_next(self._own)
        self._was_talking = talks
        return self._own.step()

    def _play_next(self, track: SpeechTrack) -> None:
        """Begin the next sentence of a track: the other speaker's follows a long gap."""
        is_other = track is self._other
        turn = self._turns[is_other]
        self._turns[is_other] += 1
        rng = np.random.default_rng((self._seed, is_other, turn))
        sentence = int(rng.integers(track.bank.num_taught))
        if is_other:
            wait = int(rng.integers(*_GAP_STEPS))
        else:
            wait = _PAUSE_STEPS if self._was_talking else 0
        track.play(sentence, -wait)

    def _pose(self) -> np.ndarray:
        """Return the (39,) float32 pose vector, as the class describes it."""
        controller = self.controller
        pose = np.zeros(POSE_SIZE, np.float32)
        pose[:30] = (self.keypoints() / (160.0, 96.0) - 1.0).ravel()
        pose[30] = controller.facing
        pose[31] = controller.velocity / RUN_SPEED
        pose[32] = controller.height / 64.0
        pose[33] = controller.eye_open()
        pose[34] = self.gaze
        pose[35] = float(controller.crouching)
        pose[36] = controller.x % WORLD_LENGTH / WORLD_LENGTH
        pose[37] = self.clock % CLOCK_PERIOD / CLOCK_PERIOD
        pose[38] = float(self.shows_face)
        return pose

    def _text(self) -> str:
        # A whole description, as worlds are trained on: own words would break the picture.
        return describe(self.scene, self.action_name, self._variant)
