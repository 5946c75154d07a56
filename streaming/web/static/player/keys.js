// Media keys, headsets and lock screens: they start and stop the player and show what it plays.
//
// Chromium and Firefox offer them only to pages on which a media element plays, long enough and not
// silent. Ours plays as much as nothing beside the sound, which comes from the audio thread.

const LENGTH_S = 10;
const RATE = 8000;

/** A WAV file, 16 bit and mono, of a tone 90 dB below full scale. */
function asGoodAsSilent() {
  const bytes = 2 * LENGTH_S * RATE;
  const view = new DataView(new ArrayBuffer(44 + bytes));
  const text = (at, letters) => [...letters].forEach((_, place) => view.setUint8(at + place, letters.charCodeAt(place)));
  text(0, "RIFF");
  view.setUint32(4, 36 + bytes, true);
  text(8, "WAVEfmt ");
  view.setUint32(16, 16, true); // bytes that describe the format
  view.setUint16(20, 1, true); // PCM
  view.setUint16(22, 1, true); // channel
  view.setUint32(24, RATE, true);
  view.setUint32(28, 2 * RATE, true); // bytes a second
  view.setUint16(32, 2, true); // bytes a sample
  view.setUint16(34, 16, true); // bits a sample
  text(36, "data");
  view.setUint32(40, bytes, true);
  for (let at = 44; at < view.byteLength; at += 2) view.setInt16(at, at % 4 ? 1 : -1, true);
  return new Blob([view], { type: "audio/wav" });
}

export class MediaKeys {
  /** play, stop: called when such a key is pressed. move: told by how many seconds. */
  constructor({ play, stop, move }) {
    this.element = document.createElement("audio");
    this.element.src = URL.createObjectURL(asGoodAsSilent());
    this.element.loop = true;
    const handlers = {
      play,
      pause: stop,
      stop,
      seekbackward: ({ seekOffset }) => move(-(seekOffset ?? 10)),
      seekforward: ({ seekOffset }) => move(seekOffset ?? 10),
    };
    for (const [action, handler] of Object.entries(handlers)) {
      try {
        navigator.mediaSession?.setActionHandler(action, handler);
      } catch {
        // a browser that does not know this key
      }
    }
  }

  /** Something plays; called within a click for the first time, as browsers ask for. */
  playing(title = "") {
    if (this.element.paused) this.element.play().catch(() => {}); // then there are no keys
    const session = navigator.mediaSession;
    if (!session) return;
    session.playbackState = "playing";
    try {
      session.setPositionState?.({ duration: Infinity }); // not the element's
    } catch {
      // Firefox knows no endless sound
    }
    if (title && session.metadata?.title !== title) session.metadata = new MediaMetadata({ title });
  }

  stopped() {
    this.element.pause();
    if (navigator.mediaSession) navigator.mediaSession.playbackState = "paused";
  }
}
