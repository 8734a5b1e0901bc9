"use strict";
// COCO run lengths, and what an answer looks like on its picture.

/** The runs of COCO's compressed text, as pycocotools writes it: five bits a character, every run after the third as a
 * difference to the one two before it. */
function runsOf(counts) {
  const runs = [];
  let at = 0;
  while (at < counts.length) {
    let value = 0, shift = 0, more = true;
    while (more) {
      const bits = counts.charCodeAt(at++) - 48;
      value += (bits & 31) * 2 ** shift;
      shift += 5;
      more = (bits & 32) !== 0;
      if (!more && (bits & 16)) value -= 2 ** shift;
      if (at >= counts.length) more = false;
    }
    if (runs.length > 2) value += runs[runs.length - 2];
    runs.push(value);
  }
  return runs;
}

/** A mask as a canvas of its own size: the colour where it is set, nothing elsewhere. Runs go down the columns. */
function maskCanvas(mask, colour) {
  const [height, width] = mask.size;
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const pen = canvas.getContext("2d");
  const image = pen.createImageData(width, height);
  let place = 0, set = false;
  for (const run of runsOf(mask.counts)) {
    if (set) {
      const end = Math.min(place + run, width * height);
      for (let i = place; i < end; i++) {
        const at = 4 * ((i % height) * width + Math.floor(i / height));
        image.data[at] = colour[0];
        image.data[at + 1] = colour[1];
        image.data[at + 2] = colour[2];
        image.data[at + 3] = 110;
      }
    }
    place += run;
    set = !set;
  }
  pen.putImageData(image, 0, 0);
  return canvas;
}

const TRUTH = [15, 157, 88], ANSWER = [224, 54, 74];
const drawnMasks = new Map();

/** `maskCanvas`, the last few hundred kept. */
function keptMask(mask, colour) {
  const key = `${colour}|${mask.size}|${mask.counts}`;
  let found = drawnMasks.get(key);
  if (found === undefined) {
    found = maskCanvas(mask, colour);
    if (drawnMasks.size > 200) drawnMasks.delete(drawnMasks.keys().next().value);
    drawnMasks.set(key, found);
  }
  return found;
}

/** Draw one answer and the truth over a picture that fills the canvas, stretched as the picture is. */
function drawLayers(canvas, sample, answer, layers) {
  const scale = window.devicePixelRatio || 1;
  const wide = canvas.clientWidth, high = canvas.clientHeight;
  if (!wide || !high) return;
  canvas.width = Math.round(wide * scale);
  canvas.height = Math.round(high * scale);
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const size = sample.size || [1, 1];
  const place = fitted(size, wide, high);
  const sides = [  // the truth above the answer, dashed, so that both are seen where they are the same
    [answer || {}, ANSWER, layers.box, layers.mask, []],
    [sample, TRUTH, layers.truth, layers.truthMask, [6, 5]],
  ];
  pen.imageSmoothingEnabled = false;
  for (const [side, colour, , withMask] of sides) {
    if (withMask && side.mask) pen.drawImage(keptMask(side.mask, colour), place.x, place.y, place.w, place.h);
  }
  if (!sample.size) return;
  const fx = place.w / size[0], fy = place.h / size[1];
  for (const [side, colour, withBox, , dashes] of sides) {
    pen.strokeStyle = `rgb(${colour})`;
    pen.lineWidth = 2;
    pen.setLineDash(dashes);
    for (const [x1, y1, x2, y2] of withBox ? side.boxes || [] : []) {
      pen.strokeRect(place.x + x1 * fx, place.y + y1 * fy, (x2 - x1) * fx, (y2 - y1) * fy);
    }
    pen.setLineDash([]);
    if (!layers.points) continue;
    const radius = colour === TRUTH ? 2.2 : 4;
    for (const [x, y] of side.points || []) dot(pen, place.x + x * fx, place.y + y * fy, colour, radius);
  }
}

function dot(pen, x, y, colour, radius) {
  pen.beginPath();
  pen.arc(x, y, radius, 0, 2 * Math.PI);
  pen.fillStyle = `rgb(${colour})`;
  pen.fill();
  pen.lineWidth = 1.2;
  pen.strokeStyle = "#fff";
  pen.stroke();
}

/** Where a picture of a size lies in a frame: as large as fits, in the middle. */
function fitted(size, wide, high) {
  const factor = Math.min(wide / size[0], high / size[1]);
  const w = size[0] * factor, h = size[1] * factor;
  return { x: (wide - w) / 2, y: (high - h) / 2, w, h };
}
