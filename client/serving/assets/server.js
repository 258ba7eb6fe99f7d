// The page of a served student: asks the server about the images.

import { TOP, start } from "./page.js";

const { maxInputs, maxBytes } = document.body.dataset;
const key = document.getElementById("key");
const answered = document.getElementById("answered");

const most = {
  files: Math.min(16, Number(maxInputs)),
  bytes: Number(maxBytes) * 0.9, // what forms add to files fits into the rest
};
start(classify, most, tellWhoAnswered);
tellWhoAnswered();

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

// Of a student that asks a vendor: how many images each has answered, and what is left of the budget.
async function tellWhoAnswered() {
  if (answered === null || (key !== null && key.value.trim() === "")) {
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
