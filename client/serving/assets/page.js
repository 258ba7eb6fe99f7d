// Takes the images that are dropped, asks about some at a time, and shows what is answered about each.

export const TOP = 3; // so many classes are shown

const drop = document.getElementById("drop");
const status = document.getElementById("status");
const answers = document.getElementById("answers");
const template = document.getElementById("answer");

const WHO = { student: "the student", vendor: "student and vendor", cache: "student and vendor (asked before)" };

// As in shared/text.py.
const CONTROL = /[\x00-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;

const UNSURE = Number(document.body.dataset.unsure ?? -1); // answers of less confidence are marked

let asking = Promise.resolve();

for (const here of document.querySelectorAll("[data-here]")) {
  here.textContent = new URL(".", location.href).href;
}
for (const button of document.querySelectorAll("[data-copies]")) {
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(document.getElementById(button.dataset.copies).textContent);
    button.textContent = "Copied";
  });
}

/**
 * Begin to take images.
 *
 * `classify(files)` gives what `POST /classify` answers, or throws what there is to say. It is given `most.files`
 * files and `most.bytes` bytes at a time, or one file. `done()` is called when all of some images are answered.
 */
export function start(classify, most, done = () => {}) {
  const take = (files) => {
    asking = asking.then(() => askAbout(files, classify, most)).then(done);
  };
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
  for (const chooser of document.querySelectorAll("input[type=file]")) {
    chooser.addEventListener("change", () => {
      take([...chooser.files]);
      chooser.value = "";
    });
  }
  for (const sample of document.querySelectorAll("[data-sample]")) {
    sample.addEventListener("click", async () => {
      const picture = await (await fetch(sample.dataset.sample)).blob();
      take([new File([picture], sample.querySelector("img").alt, { type: picture.type })]);
    });
  }
  document.getElementById("ask").addEventListener("submit", (event) => event.preventDefault());
}

async function askAbout(files, classify, most) {
  if (files.length === 0) {
    return;
  }
  tell(`Asking about ${counted(files.length)} ...`);
  let milliseconds = 0;
  const before = answers.firstElementChild; // the images that are answered now stand above it, in their order
  for (const some of portions(files, most)) {
    const began = performance.now();
    try {
      show(some, await classify(some), performance.now() - began, before);
    } catch (error) {
      tell(error.message, true);
      return;
    }
    milliseconds += performance.now() - began;
  }
  tell(`${counted(files.length)} in ${Math.round(milliseconds)} ms.`);
}

function* portions(files, most) {
  let some = [];
  let bytes = 0;
  for (const file of files) {
    if (some.length > 0 && (some.length === most.files || bytes + file.size > most.bytes)) {
      yield some;
      some = [];
      bytes = 0;
    }
    some.push(file);
    bytes += file.size;
  }
  yield some;
}

function show(files, content, milliseconds, before) {
  const refused = new Map(content.errors.map((each) => [each.index, each]));
  const results = content.results.values();
  const cards = files.map((file, index) =>
    refused.has(index)
      ? refusedCard(file, refused.get(index))
      : answerCard(file, results.next().value, milliseconds, files.length),
  );
  for (const card of cards) {
    answers.insertBefore(card, before);
  }
}

function answerCard(file, result, milliseconds, count) {
  const card = newCard(file);
  const sure = percent(result.confidence);
  const none = result.class === null;
  card.classList.toggle("none", none);
  card.querySelector(".class").append(...(none ? ["none of these"] : [named(result.class), `, ${sure}`]));
  card.querySelector(".unsure").hidden = none || result.answered_by !== "student" || result.confidence >= UNSURE;
  card.querySelector(".bar i").style.width = none ? "0" : sure;
  const together = count > 1 ? ` for ${counted(count)} together` : "";
  card.querySelector(".who").textContent =
    `answered by ${WHO[result.answered_by]} in ${Math.round(milliseconds)}\u00a0ms${together}`;
  for (const other of none ? result.top : result.top.slice(1)) {
    const item = document.createElement("li");
    item.append(named(other.class), ` ${percent(other.confidence)}`);
    card.querySelector(".top").append(item);
  }
  return card;
}

function refusedCard(file, error) {
  const card = newCard(file);
  card.classList.add("refused");
  card.querySelector(".class").textContent = visible(error.message);
  card.querySelector(".bar").remove();
  card.querySelector(".unsure").remove();
  return card;
}

function newCard(file) {
  const card = template.content.firstElementChild.cloneNode(true);
  const picture = card.querySelector("img");
  picture.src = URL.createObjectURL(file);
  picture.addEventListener("load", () => URL.revokeObjectURL(picture.src), { once: true });
  picture.addEventListener("error", () => picture.replaceWith(emptyPicture()), { once: true });
  card.querySelector(".name").append(named(file.name));
  return card;
}

// A name from elsewhere, which can neither reorder nor hide what stands beside it.
function named(name) {
  const apart = document.createElement("bdi");
  apart.textContent = visible(name);
  return apart;
}

function visible(text) {
  return text.replace(CONTROL, (each) => `\\u${each.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

// In the place of a picture that this browser cannot show.
function emptyPicture() {
  const empty = document.createElement("span");
  empty.className = "picture";
  return empty;
}

export function tell(text, isProblem = false) {
  status.textContent = visible(text);
  status.classList.toggle("problem", isProblem);
}

function counted(number) {
  return number === 1 ? "1 image" : `${number} images`;
}

function percent(share) {
  return `${(100 * share).toFixed(1)}%`;
}
