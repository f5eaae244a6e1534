// What llama.cpp thinks comes next: for each token of a text, the probabilities of the likeliest
// tokens after it, and how it would go on. Makes tests/fixtures/smollm2/llama_cpp.safetensors:
//
//   npm install --ignore-scripts node-llama-cpp@3.22.1 @node-llama-cpp/linux-x64@3.22.1
//   node scripts/peers/llama_probs.mjs MODEL.gguf tests/fixtures/smollm2/text.txt OUT.safetensors
//
// from the folder that holds node_modules. Runs on llama.cpp's CPU backend. Writes `ids` [n] u32,
// `top` [n, 128] u32, `probability` [n, 128] f32 and `continuation` [32] u32.
import { createRequire } from "node:module";
import { readFileSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { join } from "node:path";

const TOP = 128;
const CONTINUATION = 32;

const [modelPath, textPath, outPath] = process.argv.slice(2);
if (!outPath) {
  console.error("usage: llama_probs.mjs MODEL.gguf TEXT.txt OUT.safetensors");
  process.exit(2);
}
const require = createRequire(join(process.cwd(), "from-here.js"));
const { getLlama } = await import(pathToFileURL(require.resolve("node-llama-cpp")));

const llama = await getLlama({ gpu: false, build: "never" });
const model = await llama.loadModel({ modelPath });
const context = await model.createContext({ contextSize: 512, batchSize: 512, threads: 1 });
const sequence = context.getSequence();
const ids = model.tokenize(readFileSync(textPath, "utf8").trim(), false);

// The whole distribution: no sampler may cut it.
const wanted = { generateNext: { probabilities: true, options: { temperature: 1, topK: 0, topP: 1 } } };
const results = await sequence.controlledEvaluate(ids.map((id) => [id, wanted]));
// The likeliest come first.
const tops = results.map((r) => [...r.next.probabilities.entries()].slice(0, TOP));

await sequence.clearHistory();
const continuation = [];
for await (const id of sequence.evaluate(ids, { temperature: 0 })) {
  continuation.push(id);
  if (continuation.length === CONTINUATION) break;
}
console.log(model.detokenize(continuation));

const u32 = (values) => Buffer.from(Uint32Array.from(values).buffer);
const f32 = (values) => Buffer.from(Float32Array.from(values).buffer);
const tensors = [
  ["ids", "U32", [ids.length], u32(ids)],
  ["top", "U32", [ids.length, TOP], u32(tops.flat().map(([id]) => id))],
  ["probability", "F32", [ids.length, TOP], f32(tops.flat().map(([, p]) => p))],
  ["continuation", "U32", [CONTINUATION], u32(continuation)],
];
let at = 0;
const header = {};
for (const [name, dtype, shape, bytes] of tensors) {
  header[name] = { dtype, shape, data_offsets: [at, at + bytes.length] };
  at += bytes.length;
}
let text = JSON.stringify(header);
text = text.padEnd(Math.ceil(text.length / 8) * 8);
const length = Buffer.alloc(8);
length.writeBigUInt64LE(BigInt(text.length));
writeFileSync(outPath, Buffer.concat([length, Buffer.from(text), ...tensors.map((t) => t[3])]));
process.exit(0);
