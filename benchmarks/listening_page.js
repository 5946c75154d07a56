// One player at a time; another version of the same recording goes on where the last one was.
const players = (recording) => [...recording.querySelectorAll("audio")];
const held = new WeakMap();
let last = null;

// Fetches a sound as a whole, so that switching does not wait, and hosts that serve no parts of
// files can be sought in. In a page that is opened as a file, players seek without that.
function hold(player) {
  if (!location.protocol.startsWith("http")) return Promise.resolve();
  if (!held.has(player)) {
    held.set(player, fetch(player.src).then(async (answer) => {
      if (!answer.ok) throw new Error(answer.statusText);
      player.dataset.held = URL.createObjectURL(await answer.blob());
      settle(player);
    }).catch(() => held.delete(player)));  // it plays as any player does
  }
  return held.get(player);
}

// A player that has stopped takes what is held. Its event comes later, or never: a new source
// cancels it.
function settle(player) {
  if (!player.paused) return;
  player.closest(".version").classList.remove("playing");
  const { held: url } = player.dataset;
  if (!url || player.src === url) return;
  const place = player.ended ? 0 : player.currentTime;
  player.src = url;
  player.currentTime = place;
}

async function goOn(player, place) {
  if (held.has(player) && !player.dataset.held) {
    player.pause();
    await held.get(player);
    if (last !== player) return;  // somebody chose another one meanwhile
  }
  player.currentTime = place;
  player.play();
}

for (const recording of document.querySelectorAll(".recording")) {
  recording.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const player = players(recording)[Number(event.key) - 1];
    if (!player) return;
    event.preventDefault();
    player.focus();
    player.play();
  });
}
document.addEventListener("play", ({ target }) => {
  const recording = target.closest(".recording");
  const before = last;
  last = target;
  target.closest(".version").classList.add("playing");
  if (before === target) return;
  hold(target);
  players(recording).filter((player) => player.preload !== "none").forEach(hold);
  if (!before) return;
  const goesOn = before.closest(".recording") === recording && !before.ended;
  const place = before.currentTime;
  before.pause();
  settle(before);
  if (goesOn) goOn(target, place);
}, true);
document.addEventListener("pause", ({ target }) => settle(target), true);
