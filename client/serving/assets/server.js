// The page of a served student: asks the server about the images.

import { TOP, start } from "./page.js";

const { maxInputs, maxBytes } = document.body.dataset;
const key = document.getElementById("key");

start(classify, {
  files: Math.min(16, Number(maxInputs)),
  bytes: Number(maxBytes) * 0.9, // what forms add to files fits into the rest
});

async function classify(files) {
  const form = new FormData();
  form.append("top", String(TOP));
  form.append("on_error", "skip");
  for (const file of files) {
    form.append("image", file, file.name);
  }
  const headers = key === null ? {} : { authorization: `Bearer ${key.value.trim()}` };
  let response;
  try {
    response = await fetch("classify", { method: "POST", body: form, headers });
  } catch {
    throw new Error("The server does not answer. Is it still running?");
  }
  const content = await response.json();
  if (!response.ok) {
    throw new Error(`${content.error.message} (${content.error.code})`);
  }
  return content;
}
