"use strict";
// Asks for what is newer than the frame it shows, draws it, asks again: frames that came in between are never sent.

const part = (id) => document.getElementById(id);
const say = (kind, text) => {
  if (part("state").textContent !== text) part("state").textContent = text;
  part("state").dataset.kind = kind;
};
const write = (id, value, digits = 0) => {
  part(id).textContent = typeof value === "number" ? value.toFixed(digits) : value;
};

part("strength").addEventListener("input", showStrength);
function showStrength() {
  part("heat").style.opacity = part("strength").value / 100;
  write("percent", `${part("strength").value} %`);
}
showStrength(); // a browser keeps the slider's place over a reload

async function decoded(url) {
  const picture = new Image();
  picture.src = url;
  await picture.decode();
  return picture;
}

function paint(canvas, picture) {
  if (canvas.width !== picture.width) canvas.width = picture.width;
  if (canvas.height !== picture.height) canvas.height = picture.height;
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(picture, 0, 0);
}

function place(box, [height, width]) {
  const svg = part("box");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.style.display = box ? "block" : "none";
  if (!box) return;
  const [x0, y0, x1, y1] = box;
  for (const rect of svg.children) {
    for (const [name, value] of Object.entries({ x: x0, y: y0, width: x1 - x0, height: y1 - y0 })) {
      rect.setAttribute(name, value);
    }
  }
}

async function draw({ frame, heat, size, row }) {
  const pictures = await Promise.all([decoded(frame), decoded(heat)]);
  const box = row.x0 === null ? null : [row.x0, row.y0, row.x1, row.y1];
  const [x0, y0, x1, y1] = (box ?? []).map(Math.round);
  const edges = box ? `${x0}, ${y0} to ${x1}, ${y1}` : "no box";
  part("stage").style.aspectRatio = `${size[1]} / ${size[0]}`;
  part("stage").style.maxWidth = `calc(62vh * ${size[1] / size[0]})`;
  paint(part("frame"), pictures[0]);
  paint(part("heat"), pictures[1]);
  place(box, size);
  part("box").setAttribute("aria-label", edges);
  write("class", row.class);
  write("class_score", row.class_score, 2);
  write("score", box ? row.score : "–", 2);
  write("edges", edges);
  write("number", row.frame);
  write("time_s", row.time_s, 2);
}

function tell({ figures, quiet_s, ended }) {
  if (figures) {
    write("fps", figures.fps, 1);
    for (const name of ["lag_ms", "lag_p95_ms", "dropped", "reconnects"]) write(name, figures[name]);
    write("read", figures.frames + figures.dropped);
  }
  if (ended) say("ended", `ended: ${ended}`);
  else if (!figures) say("waiting", "waiting for the first frame");
  else if (quiet_s > 1.5) say("waiting", `no new frame for ${Math.round(quiet_s)} s`);
  else say("live", "live");
}

async function ask(number) {
  try {
    return await (await fetch(`/next?after=${number}`)).json();
  } catch {
    return { number, ended: "tcam no longer answers" };
  }
}

async function follow() {
  for (let number = 0, over = false; !over; ) {
    await new Promise(requestAnimationFrame); // nothing is asked for while the page is hidden
    const state = await ask(number);
    if (state.frame) await draw(state);
    tell(state);
    number = state.number;
    over = Boolean(state.ended);
  }
}

follow();
