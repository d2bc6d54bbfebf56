// OpenAI's own client library against the server at PROMPTGEN_URL, whose key
// is PROMPTGEN_KEY: nothing but the base address is said to it.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";

const url = process.env.PROMPTGEN_URL;
const client = new OpenAI({ baseURL: url + "/v1", apiKey: process.env.PROMPTGEN_KEY, maxRetries: 0 });
const model = "tiny";

test("completion", async () => {
  const a = await client.completions.create({ model, prompt: "高血压", max_tokens: 12, n: 2, seed: 1, logprobs: 2 });
  assert.equal(a.object, "text_completion");
  assert.equal(a.choices.length, 2);
  for (const [i, c] of a.choices.entries()) {
    assert.equal(c.index, i);
    assert.ok(["stop", "length"].includes(c.finish_reason));
    assert.equal(c.logprobs.tokens.length, c.logprobs.token_logprobs.length);
  }
  assert.equal(a.usage.total_tokens, a.usage.prompt_tokens + a.usage.completion_tokens);
  const b = await client.completions.create({ model, prompt: "高血压", max_tokens: 12, n: 2, seed: 1 });
  assert.deepEqual(b.choices.map(c => c.text), a.choices.map(c => c.text), "the same seed, the same texts");
});

test("lists of prompts and tokens, echo", async () => {
  const a = await client.completions.create({ model, prompt: ["高", "血"], max_tokens: 3, echo: true });
  assert.deepEqual(a.choices.map(c => c.text[0]), ["高", "血"]);
  const b = await client.completions.create({ model, prompt: [[7, 8], [9]], max_tokens: 3 });
  assert.equal(b.choices.length, 2);
});

test("stream with usage joins to the whole answer", async () => {
  const ask = { model, prompt: "高血压", max_tokens: 20, seed: 5 };
  const whole = await client.completions.create(ask);
  let text = "", usage, finish;
  for await (const chunk of await client.completions.create({ ...ask, stream: true, stream_options: { include_usage: true } })) {
    text += chunk.choices[0]?.text ?? "";
    finish ??= chunk.choices[0]?.finish_reason;
    usage = chunk.usage ?? usage;
  }
  assert.equal(text, whole.choices[0].text);
  assert.equal(finish, whole.choices[0].finish_reason);
  assert.deepEqual(usage, whole.usage);
});

test("a stream that is left", async () => {
  const stream = await client.completions.create({ model, prompt: "高", max_tokens: 1000, stream: true });
  for await (const _ of stream) break;
});

test("models", async () => {
  const list = [];
  for await (const m of client.models.list()) list.push(m.id);
  assert.deepEqual(list, [model]);
  assert.equal((await client.models.retrieve(model)).id, model);
  await assert.rejects(client.models.retrieve("other"), OpenAI.NotFoundError);
});

test("errors have OpenAI's form", async () => {
  await assert.rejects(client.completions.create({ model, prompt: "高", max_tokens: -1 }), err => {
    assert.ok(err instanceof OpenAI.BadRequestError);
    assert.equal(err.param, "max_tokens");
    assert.equal(err.type, "invalid_request_error");
    return true;
  });
  const stranger = new OpenAI({ baseURL: url + "/v1", apiKey: "wrong", maxRetries: 0 });
  await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
});
