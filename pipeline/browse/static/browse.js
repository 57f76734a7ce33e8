"use strict";
// A clip on its waveform, the keys to go through a list, and marks.

const PIXELS_PER_S = 110;
const token = document.querySelector("meta[name=voxquarry-token]").content;

async function asked(address, options) {
  const answer = await fetch(address, options);
  if (!answer.ok) throw new Error(await answer.text());
  return answer;
}

/** Draw a panel's waveform, place its words, and let player, words and marks work. */
async function open(panel, play) {
  const audio = panel.querySelector("audio");
  const address = panel.dataset.address;
  wireReview(panel, address);
  if (!audio) return;
  try {
    const [sound, outline] = await Promise.all([
      asked(`${address}/audio`).then((answer) => answer.blob()),
      asked(`${address}/outline`).then((answer) => answer.json()),
    ]);
    // Whole in memory, so that every place in it can be jumped to.
    audio.src = URL.createObjectURL(sound);
    wireTrack(panel, audio, outline);
    if (play) await audio.play();
    panel.dataset.open = "true";
  } catch (error) {
    if (error.name !== "AbortError" && error.name !== "NotAllowedError") tell(panel, error.message);
  }
}

function wireTrack(panel, audio, outline) {
  const strip = panel.querySelector(".strip");
  const track = panel.querySelector(".track");
  const cursor = panel.querySelector(".cursor");
  const words = [...panel.querySelectorAll(".word")];
  const width = Math.max(strip.clientWidth, Math.ceil(outline.duration_s * PIXELS_PER_S));
  const place = (seconds) => (seconds / outline.duration_s) * width;
  track.style.width = `${width}px`;
  const spans = words.map((word) => [place(word.dataset.start), place(word.dataset.end)]);
  draw(track.querySelector("canvas"), width, outline.peaks, spans);
  for (const word of words) {
    word.style.left = `${place(word.dataset.start)}px`;
    word.addEventListener("click", () => {
      audio.currentTime = Number(word.dataset.start);
      audio.play();
    });
  }
  track.addEventListener("click", (event) => {
    if (event.target.closest(".word")) return;
    audio.currentTime = ((event.clientX - track.getBoundingClientRect().left) / width) * outline.duration_s;
  });
  const follow = () => {
    const now = audio.currentTime;
    cursor.style.left = `${place(now)}px`;
    for (const word of words) {
      word.classList.toggle("now", now >= Number(word.dataset.start) && now < Number(word.dataset.end));
    }
    if (place(now) > strip.scrollLeft + strip.clientWidth * 0.85) strip.scrollLeft = place(now) - 60;
    if (!audio.paused && panel.isConnected) requestAnimationFrame(follow);
  };
  for (const name of ["play", "seeked", "pause"]) audio.addEventListener(name, follow);
}

/** spans: of the words, in pixels; every other one is shaded. */
function draw(canvas, width, peaks, spans) {
  const height = 72;
  const sharp = Math.min(window.devicePixelRatio || 1, 32000 / width);
  canvas.width = Math.round(width * sharp);
  canvas.height = Math.round(height * sharp);
  const pen = canvas.getContext("2d");
  pen.scale(sharp, sharp);
  pen.fillStyle = "#e4eef5";
  spans.forEach(([start, end], index) => {
    if (index % 2 === 0) pen.fillRect(start, 0, end - start, height);
  });
  pen.fillStyle = "#0072b2";
  const step = width / peaks.length;
  // By the loudest of the clip: what is soft is seen too.
  const loudest = peaks.reduce((most, peak) => Math.max(most, peak), 0.01);
  peaks.forEach((peak, index) => {
    const tall = Math.max(1, (peak / loudest) * (height - 4));
    pen.fillRect(index * step, (height - tall) / 2, Math.max(0.6, step * 0.8), tall);
  });
}

function tell(panel, text) {
  panel.querySelector("[data-status]").textContent = text;
}

function wireReview(panel, address) {
  const form = panel.querySelector(".review");
  const back = panel.querySelector("[data-take-back]");
  const send = async (method, reason) => {
    const headers = { "x-voxquarry-token": token, "content-type": "application/json" };
    const body = method === "PUT" ? JSON.stringify({ reason }) : undefined;
    try {
      const { review } = await (await asked(`${address}/review`, { method, headers, body })).json();
      tell(panel, review === null ? "The mark is taken back." : `Marked as bad: ${review}`);
      back.hidden = review === null;
      if (review === null) form.elements.reason.value = "";
      showInList(panel.dataset.clip, review);
    } catch (error) {
      tell(panel, error.message);
    }
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    form.elements.reason.blur();
    send("PUT", form.elements.reason.value);
  });
  back.addEventListener("click", () => send("DELETE"));
}

function showInList(clip, review) {
  const row = document.querySelector(`tr[data-clip="${CSS.escape(clip)}"]`);
  if (!row) return;
  row.classList.toggle("bad", review !== null);
  const cell = row.querySelector("[data-review]");
  if (!cell) return;
  cell.textContent = "";
  if (review === null) return;
  const tag = document.createElement("span");
  tag.className = "tag bad";
  tag.textContent = review;
  cell.append(tag);
}

const dock = document.getElementById("dock");
const rows = [...document.querySelectorAll("tr[data-panel]")];

async function choose(row) {
  for (const other of rows) {
    other.classList.toggle("current", other === row);
    if (other === row) other.setAttribute("aria-current", "true");
    else other.removeAttribute("aria-current");
  }
  const answer = await fetch(row.dataset.panel);
  const text = await answer.text();
  if (!row.classList.contains("current")) return; // another one was chosen meanwhile
  dock.hidden = false;
  if (!answer.ok) {
    dock.textContent = text;
    return;
  }
  dock.innerHTML = text; // our own template, which escapes what comes from the corpus
  row.scrollIntoView({ block: "nearest" });
  await open(dock.querySelector(".panel"), true);
}

for (const row of rows) row.querySelector(".play").addEventListener("click", () => choose(row));

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, select, textarea")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const audio = document.querySelector(".panel audio");
  const now = rows.findIndex((row) => row.classList.contains("current"));
  if (event.key === "j" && now + 1 < rows.length) choose(rows[now + 1]);
  else if (event.key === "k" && now > 0) choose(rows[now - 1]);
  else if (event.key === "p" && audio) audio.paused ? audio.play() : audio.pause();
  else if (event.key === "b" && audio) document.querySelector(".review input").focus();
  else return;
  event.preventDefault();
});

if (!dock) {
  const panel = document.querySelector(".panel");
  if (panel) open(panel, false);
}
