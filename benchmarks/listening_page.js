// One player at a time; another version of the same recording goes on where the last one was.
for (const recording of document.querySelectorAll(".recording")) {
  const players = [...recording.querySelectorAll("audio")];
  recording.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const player = players[Number(event.key) - 1];
    if (!player) return;
    event.preventDefault();
    player.focus();
    player.play();
  });
}
let last = null;
document.addEventListener("play", ({ target }) => {
  if (last && last !== target) {
    if (last.closest(".recording") === target.closest(".recording") && !last.ended) {
      target.currentTime = last.currentTime;
    }
    last.pause();
  }
  last = target;
  target.closest(".version").classList.add("playing");
}, true);
for (const kind of ["pause", "ended"]) {
  document.addEventListener(kind, ({ target }) => {
    target.closest(".version").classList.remove("playing");
  }, true);
}
