// The page of a student that answers in the browser: its file is run by ONNX Runtime as WebAssembly.

import * as ort from "../onnxruntime/ort.js";
import { TOP, start, tell } from "./page.js";
import { decodeSquare } from "./pixels.js";

const MOST_BYTES = 64 * 2 ** 20;
const NAMES = { input: "pixels", output: "probabilities" };

ort.env.wasm.numThreads = 1; // several take headers that most servers of static files do not send
ort.env.wasm.wasmPaths = { wasm: new URL("../onnxruntime/ort.wasm", import.meta.url).href };

let student = null;

try {
  tell("Loading the student ...");
  student = await load();
  start(classify, { files: 1, bytes: Infinity });
  document.body.classList.remove("loading");
  tell("Ready.");
} catch (error) {
  tell(`The student cannot be run here: ${error.message}`, true);
}

/** What the student says of files, as `POST /classify` has it. */
export async function classify(files) {
  const [results, errors] = [[], []];
  for (const [index, file] of files.entries()) {
    try {
      results.push(await answer(file));
    } catch (error) {
      errors.push({ index, message: error.message });
    }
  }
  return { results, errors };
}

async function load() {
  const [facts, file] = await Promise.all([fetched("student.json"), fetched("student.onnx")]);
  const { classes, image_size: side, reject } = await facts.json();
  const session = await ort.InferenceSession.create(await file.arrayBuffer(), { executionProviders: ["wasm"] });
  const loaded = { classes, side, session, rejectBelow: reject?.below ?? -Infinity };
  await probabilities(loaded, new Uint8Array(side * side * 3)); // the first answer takes longer
  return loaded;
}

async function fetched(path) {
  const response = await fetch(path);
  if (!response.ok) {
    throw new Error(`${path} is not there (${response.status})`);
  }
  return response;
}

async function answer(file) {
  if (file.size > MOST_BYTES) {
    throw new Error(`larger than ${MOST_BYTES / 2 ** 20} MiB`);
  }
  const row = await probabilities(student, await decodeSquare(file, student.side));
  const top = student.classes
    .map((name, index) => ({ class: name, confidence: row[index] }))
    .sort((one, other) => other.confidence - one.confidence)
    .slice(0, TOP);
  const none = sureness(row) < student.rejectBelow;
  return { name: file.name, ...top[0], ...(none && { class: null }), answered_by: "student", top };
}

// As client/learning/rejection.py has it.
function sureness(row) {
  const entropy = -row.reduce((sum, share) => sum + share * Math.log(Math.max(share, 1e-12)), 0);
  return 1 - entropy / Math.log(Math.max(2, row.length));
}

async function probabilities({ session, side }, pixels) {
  const input = new ort.Tensor("uint8", pixels, [1, side, side, 3]);
  const found = await session.run({ [NAMES.input]: input }, [NAMES.output]);
  return found[NAMES.output].data;
}
