// Everything here is a help: without it, every page can be read and every form works.
document.documentElement.classList.add("scripted");

// Times in the reader's zone, with UTC when pointed at.
const ZONED = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

function localTimes(within) {
  for (const time of within.querySelectorAll("time[datetime]:not([title])")) {
    const moment = new Date(time.dateTime);
    if (Number.isNaN(moment.valueOf())) continue;
    time.title = time.textContent;
    time.textContent = ZONED.format(moment);
  }
}

function onClick(selector, act) {
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.(selector);
    if (button) act(button);
  });
}

onClick("[data-print]", () => window.print());
onClick("[data-copy]", async (button) => {
  const from = document.querySelector(button.dataset.copy);
  try {
    await navigator.clipboard.writeText(from.textContent);
    button.firstChild.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(from);
    button.firstChild.textContent = "Press Ctrl+C";
  }
});

// A form is sent once, however often its button is pressed; another time when one comes back to the page.
addEventListener("submit", (event) => {
  if (event.defaultPrevented) return;
  if (event.target.dataset.sent) event.preventDefault();
  event.target.dataset.sent = "yes";
});
addEventListener("pageshow", () => document.querySelectorAll("form[data-sent]").forEach((form) => delete form.dataset.sent));

// Try it: pictures beside their fields, files dropped onto them, and the answer without leaving the page.
function preview(drop, file) {
  drop.querySelector("img")?.remove();
  if (!file) return;
  const picture = new Image();
  picture.alt = file.name;
  picture.src = URL.createObjectURL(file);
  picture.onload = () => URL.revokeObjectURL(picture.src);
  picture.onerror = () => picture.remove();
  drop.append(picture);
}

// An apple, drawn here: a picture for who has none at hand.
async function apple(name, colour) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 224;
  const draw = canvas.getContext("2d");
  const oval = (fill, ...shape) => { draw.fillStyle = fill; draw.beginPath(); draw.ellipse(...shape, 0, 7); draw.fill(); };
  draw.fillStyle = "#fff";
  draw.fillRect(0, 0, 224, 224);
  oval(colour, 88, 128, 52, 62, 0.1);
  oval(colour, 136, 128, 52, 62, -0.1);
  draw.fillStyle = "#6b4423";
  draw.fillRect(108, 42, 8, 38);
  oval("#3f8f3a", 138, 52, 26, 11, -0.4);
  const blob = await new Promise((done) => canvas.toBlob(done));
  return new File([blob], name, { type: "image/png" });
}

async function useSamples(form, text) {
  const pictures = [await apple("red apple.png", "#d0302b"), await apple("green apple.png", "#7fb53c")];
  form.querySelectorAll("input[type=file]").forEach((field, at) => {
    const files = new DataTransfer();
    files.items.add(pictures[at]);
    field.files = files.files;
    preview(field.closest(".drop"), pictures[at]);
  });
  form.elements.text.value = text;
}

function tryIt(form) {
  const samples = form.querySelector("[data-samples]");
  samples?.addEventListener("click", () => useSamples(form, samples.dataset.samples));
  for (const drop of form.querySelectorAll(".drop")) {
    const field = drop.querySelector("input[type=file]");
    if (!field) continue;
    field.addEventListener("change", () => preview(drop, field.files[0]));
    for (const kind of ["dragover", "dragleave", "drop"]) {
      drop.addEventListener(kind, (event) => {
        event.preventDefault();
        drop.classList.toggle("over", kind === "dragover");
      });
    }
    drop.addEventListener("drop", (event) => {
      field.files = event.dataTransfer.files;
      preview(drop, field.files[0]);
    });
  }
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const result = document.getElementById("result");
    form.classList.add("busy");
    result.textContent = "Asking the model …";
    try {
      const answer = await fetch(form.action, { method: "POST", body: new FormData(form) });
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const told = page.querySelectorAll(answer.ok ? "#result > *" : "main > .problem");
      result.replaceChildren(...told);
      if (!told.length) location.reload();
      else if (answer.ok) form.elements.once.value = page.querySelector("[data-try] [name=once]").value;
    } catch {
      result.textContent = "The vendor does not answer. It may have charged you: look at the ledger before you try again.";
    }
    form.classList.remove("busy");
  });
}

// The ledger, recomputed by the reader's own machine.
const GENESIS = "0".repeat(64);
const encoder = new TextEncoder();

function ascii(text) {
  return JSON.stringify(text).replace(/[\u007f-\uffff]/g, (c) => "\\u" + c.charCodeAt(0).toString(16).padStart(4, "0"));
}

function micros(moment) {
  const [, whole, fraction] = /^([^.Z]*)(?:\.(\d+))?Z$/.exec(moment);
  return BigInt(Date.parse(whole + "Z")) * 1000n + BigInt((fraction ?? "").padEnd(6, "0").slice(0, 6));
}

function canonical(entry) {
  const content = new Map(Object.entries(entry).filter(([name, value]) => value && name !== "entry_hash"));
  content.set("created_at", micros(entry.created_at));
  if (content.has("request_id")) {
    content.set("hold_id", content.get("request_id"));
    content.delete("request_id");
  }
  const names = [...content.keys()].sort();
  return `{${names.map((name) => {
    const value = content.get(name);
    return `${ascii(name)}:${typeof value === "string" ? ascii(value) : String(value)}`;
  }).join(",")}}`;
}

async function sha256(text) {
  const digest = await crypto.subtle.digest("SHA-256", encoder.encode(text));
  return Array.from(new Uint8Array(digest), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function decoded(part) {
  const letters = atob(part.replace(/-/g, "+").replace(/_/g, "/"));
  return Uint8Array.from(letters, (c) => c.charCodeAt(0));
}

async function receiptsIn(files) {
  const found = new Map();
  let unreadable = 0;
  for (const file of files) {
    for (const [jws] of (await file.text()).matchAll(/eyJ[\w-]+\.[\w-]+\.[\w-]+/g)) {
      try {
        const [head, claims] = jws.split(".").slice(0, 2).map((part) => JSON.parse(new TextDecoder().decode(decoded(part))));
        if (claims.ledger_seq > 0) found.set(jws, { head, claims });
      } catch {
        unreadable += 1;
      }
    }
  }
  return { found, unreadable };
}

async function isSigned(jws, head, keys) {
  const jwk = keys.get(head.kid);
  if (!jwk || head.alg !== "EdDSA") return false;
  const key = await crypto.subtle.importKey("jwk", { kty: "OKP", crv: "Ed25519", x: jwk.x }, { name: "Ed25519" }, false, ["verify"]);
  const [first, second, signature] = jws.split(".");
  return crypto.subtle.verify({ name: "Ed25519" }, key, decoded(signature), encoder.encode(`${first}.${second}`));
}

async function json(url) {
  for (;;) {
    const answer = await fetch(url);
    if (answer.ok) return answer.json();
    if (answer.status !== 429) throw new Error(`the vendor answered ${answer.status}; reload the page and try again`);
    const seconds = Number(answer.headers.get("retry-after")) || 1;
    await new Promise((done) => setTimeout(done, 1000 * seconds));
  }
}

async function verifyChain(url, progress, wanted) {
  const hashes = new Map();
  let previous = GENESIS, seq = 0, sealed = 0;
  for (;;) {
    const page = await json(`${url}?after=${seq}`);
    if (!page.data.length) return { entries: seq, sealed, hashes, last: previous };
    for (const entry of page.data) {
      if (entry.seq !== seq + 1) return { problem: `entry ${seq + 1} is missing` };
      if (entry.previous_hash !== previous) return { problem: `entry ${entry.seq} does not follow from the one before it` };
      if (entry.kind === "sealed") sealed += 1; // another project's: its place in the chain is all there is
      else if ((await sha256(canonical(entry))) !== entry.entry_hash) return { problem: `entry ${entry.seq} was changed: its hash does not match` };
      previous = entry.entry_hash;
      seq = entry.seq;
      if (wanted.has(seq)) hashes.set(seq, previous);
    }
    progress(seq, page.last);
  }
}

async function verify(area) {
  const verdict = area.querySelector("#verdict");
  const button = area.querySelector("#verify-chain");
  const say = (words, kind) => {
    const line = document.createElement("p");
    line.className = kind;
    line.textContent = words;
    verdict.replaceChildren(line);
  };
  button.disabled = true;
  try {
    const { found, unreadable } = await receiptsIn(area.querySelector("#receipts").files);
    const wanted = new Set([...found.values()].map((each) => each.claims.ledger_seq));
    const chain = await verifyChain(area.dataset.verify, (seq, last) => say(`${seq} of ${last} entries are right so far …`, "note"), wanted);
    if (chain.problem) return say(`The ledger is not in order: ${chain.problem}. Keep this page, and tell the vendor.`, "problem");
    const others = chain.sealed ? ` ${chain.sealed} of them belong to other projects, and only their hashes are shown.` : "";
    const whole = `All ${chain.entries} entries are in order.${others} The last hash is ${chain.last.slice(0, 16)}…`;
    if (!found.size) return say(`${whole}${area.querySelector("#receipts").files.length ? " No signed receipt was found in the files." : ""}`, "told");
    const keys = new Map((await json(area.dataset.keys)).keys.map((key) => [key.kid, key]));
    const wrong = [];
    for (const [jws, { head, claims }] of found) {
      if (!(await isSigned(jws, head, keys))) wrong.push(`the receipt of entry ${claims.ledger_seq} is not signed by a key of this vendor`);
      else if (chain.hashes.get(claims.ledger_seq) !== claims.entry_hash) wrong.push(`entry ${claims.ledger_seq} is not the one that was signed`);
    }
    if (wrong.length) return say(`${wrong.length} of ${found.size} receipts do not agree with this ledger: ${wrong.slice(0, 3).join("; ")}. Keep them, and ask the vendor.`, "problem");
    say(`${whole} ${found.size} signed receipts agree with it.${unreadable ? ` ${unreadable} could not be read.` : ""}`, "told");
  } catch (error) {
    say(`It could not be verified: ${error.message}.`, "problem");
  } finally {
    button.disabled = false;
  }
}

// What happens now: numbers that the server sends again and again.
function spark(figure, values) {
  const line = figure.querySelector("polyline");
  const most = Math.max(...values, 1e-9);
  const step = 200 / Math.max(1, values.length - 1);
  line.setAttribute("points", values.map((value, at) => `${(at * step).toFixed(1)},${(36 - (34 * value) / most).toFixed(1)}`).join(" "));
}

function live(area) {
  const state = area.querySelector("[data-state]");
  const source = new EventSource(area.dataset.stream);
  const show = (words, kind) => {
    state.textContent = words;
    state.previousElementSibling.className = `dot ${kind}`;
  };
  source.addEventListener("now", (event) => {
    const now = JSON.parse(event.data);
    show("live", "good");
    for (const [name, text] of Object.entries(now.figures)) {
      for (const place of area.querySelectorAll(`[data-live="${name}"]`)) place.textContent = text;
    }
    for (const [name, values] of Object.entries(now.lines)) {
      for (const figure of area.querySelectorAll(`[data-spark="${name}"]`)) spark(figure, values);
    }
    area.querySelector("[data-refusals] tbody")?.replaceChildren(...now.refusals.map(([code, rate]) => {
      const row = document.createElement("tr");
      for (const [tag, text, kind] of [["th", code, ""], ["td", rate, "n"]]) {
        const cell = document.createElement(tag);
        if (tag === "th") cell.scope = "row";
        cell.className = kind;
        cell.textContent = text;
        row.append(cell);
      }
      return row;
    }));
  });
  source.addEventListener("away", (event) => show(JSON.parse(event.data), "bad"));
  source.addEventListener("ended", () => { source.close(); show("your session has ended: reload the page", "bad"); });
  source.onerror = () => {
    const ended = source.readyState === EventSource.CLOSED;
    show(ended ? "not connected: reload the page" : "not connected; trying again", "bad");
  };
  addEventListener("pagehide", () => source.close());
}

// A part of a page that is read again while somebody looks at it; for an hour, lest a page that was left open
// keep its session for ever.
function renew(area) {
  const seconds = Number(area.dataset.renew);
  let left = Math.round(3600 / seconds);
  const timer = setInterval(async () => {
    if (document.hidden || area.contains(document.activeElement)) return;
    left -= 1;
    try {
      const answer = await fetch(location.href);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const next = page.getElementById(area.id);
      if (!answer.ok || !next) return clearInterval(timer);
      localTimes(next);
      if (!next.dataset.renew || left <= 0) clearInterval(timer);
      area.replaceChildren(...next.children);
      tables(area);
    } catch {
      // The vendor does not answer; it is asked again.
    }
  }, 1000 * seconds);
}

localTimes(document);
if (location.search.includes("begun=1")) {
  const kept = location.search.replace(/[?&]begun=1/, "").replace(/^&/, "?");
  history.replaceState(null, "", `${location.pathname}${kept}`);
}
document.querySelectorAll("[data-renew]").forEach(renew);
document.querySelectorAll("[data-try]").forEach(tryIt);
document.querySelectorAll("[data-stream]").forEach(live);
document.querySelectorAll("[data-verify]").forEach((area) => area.querySelector("#verify-chain").addEventListener("click", () => verify(area)));
