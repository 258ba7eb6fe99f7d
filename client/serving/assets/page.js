"use strict";

// Sends the images that are dropped, some at a time, and shows what is answered about each.

const MOST_FILES = Math.min(16, Number(document.body.dataset.maxInputs));
const MOST_BYTES = Number(document.body.dataset.maxBytes) * 0.9; // what forms add to files fits into the rest
const TOP = 3;

const drop = document.getElementById("drop");
const chooser = document.getElementById("files");
const key = document.getElementById("key");
const status = document.getElementById("status");
const answers = document.getElementById("answers");
const template = document.getElementById("answer");
const deferral = document.getElementById("deferral");
const answered = document.getElementById("answered");

let asking = Promise.resolve();

tellWhoAnswered();

drop.addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  take([...event.dataTransfer.files]);
});
chooser.addEventListener("change", () => {
  take([...chooser.files]);
  chooser.value = "";
});
document.getElementById("ask").addEventListener("submit", (event) => event.preventDefault());

function take(files) {
  asking = asking.then(() => askAbout(files));
}

async function askAbout(files) {
  if (files.length === 0) {
    return;
  }
  tell(`Asking about ${counted(files.length)} ...`);
  let milliseconds = 0;
  for (const some of portions(files)) {
    const began = performance.now();
    try {
      show(some, await classify(some), performance.now() - began);
    } catch (error) {
      tell(error.message, true);
      return;
    }
    milliseconds += performance.now() - began;
  }
  tell(`${counted(files.length)} in ${Math.round(milliseconds)} ms.`);
  await tellWhoAnswered();
}

// Of a student that asks a vendor: how many images each has answered, and what is left of the budget.
async function tellWhoAnswered() {
  if (deferral.hidden || (key !== null && key.value.trim() === "")) {
    return;
  }
  const response = await fetch("v1/deferral", { headers: headers() }).catch(() => null);
  if (response === null || !response.ok) {
    return;
  }
  const told = await response.json();
  const by = told.answered_by;
  const period = { day: "today", month: "this month", total: "in all" }[told.period];
  const left = told.budget_left === null ? "" : ` ${told.budget_left} of ${told.budget} queries are left ${period}.`;
  answered.textContent =
    `Since the start: ${by.student} by the student, ${by.vendor} with the vendor, ` +
    `${by.cache} with what the vendor said before.${left}`;
}

function headers() {
  return key === null ? {} : { authorization: `Bearer ${key.value.trim()}` };
}

function* portions(files) {
  let some = [];
  let bytes = 0;
  for (const file of files) {
    if (some.length > 0 && (some.length === MOST_FILES || bytes + file.size > MOST_BYTES)) {
      yield some;
      some = [];
      bytes = 0;
    }
    some.push(file);
    bytes += file.size;
  }
  yield some;
}

async function classify(files) {
  const form = new FormData();
  form.append("top", String(TOP));
  form.append("on_error", "skip");
  for (const file of files) {
    form.append("image", file, file.name);
  }
  let response;
  try {
    response = await fetch("classify", { method: "POST", body: form, headers: headers() });
  } catch {
    throw new Error("The server does not answer. Is it still running?");
  }
  const content = await response.json();
  if (!response.ok) {
    throw new Error(`${content.error.message} (${content.error.code})`);
  }
  return content;
}

function show(files, content, milliseconds) {
  const refused = new Map(content.errors.map((each) => [each.index, each]));
  const results = content.results.values();
  const cards = files.map((file, index) =>
    refused.has(index)
      ? refusedCard(file, refused.get(index))
      : answerCard(file, results.next().value, milliseconds, files.length),
  );
  answers.prepend(...cards);
}

function answerCard(file, result, milliseconds, count) {
  const card = newCard(file);
  const sure = percent(result.confidence);
  card.querySelector(".class").textContent = `${result.class}, ${sure}`;
  card.querySelector(".bar i").style.width = sure;
  const together = count > 1 ? ` for ${counted(count)} together` : "";
  const who = { student: "the student", vendor: "student and vendor", cache: "student and vendor (asked before)" };
  card.querySelector(".who").textContent =
    `answered by ${who[result.answered_by]} in ${Math.round(milliseconds)} ms${together}`;
  for (const other of result.top.slice(1)) {
    const item = document.createElement("li");
    item.textContent = `${other.class} ${percent(other.confidence)}`;
    card.querySelector(".top").append(item);
  }
  return card;
}

function refusedCard(file, error) {
  const card = newCard(file);
  card.classList.add("refused");
  card.querySelector(".class").textContent = error.message;
  card.querySelector(".bar").remove();
  return card;
}

function newCard(file) {
  const card = template.content.firstElementChild.cloneNode(true);
  const picture = card.querySelector("img");
  picture.src = URL.createObjectURL(file);
  picture.addEventListener("load", () => URL.revokeObjectURL(picture.src), { once: true });
  picture.addEventListener("error", () => picture.replaceWith(emptyPicture()), { once: true });
  card.querySelector(".name").textContent = file.name;
  return card;
}

// In the place of a picture that this browser cannot show.
function emptyPicture() {
  const empty = document.createElement("span");
  empty.className = "picture";
  return empty;
}

function tell(text, isProblem = false) {
  status.textContent = text;
  status.classList.toggle("problem", isProblem);
}

function counted(number) {
  return number === 1 ? "1 image" : `${number} images`;
}

function percent(share) {
  return `${(100 * share).toFixed(1)}%`;
}
