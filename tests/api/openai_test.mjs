// The official client, unmodified, against a running API.
//   CARAVAN_API_BASE=http://127.0.0.1:8080/v1 [CARAVAN_API_KEY=...] node --test openai_test.mjs
// Nothing here depends on what the model says, only on how.
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import OpenAI from 'openai';

const baseURL = process.env.CARAVAN_API_BASE;
const apiKey = process.env.CARAVAN_API_KEY || 'none';
if (!baseURL) throw new Error('CARAVAN_API_BASE says where the API is');

const client = new OpenAI({ baseURL, apiKey, maxRetries: 0, timeout: 120_000 });
const prompt = 'Once upon a time';
const messages = [
  { role: 'system', content: 'You tell fairy tales.' },
  { role: 'user', content: [{ type: 'text', text: 'Tell me ' }, { type: 'text', text: 'a tale.' }] },
];
let model;

before(async () => {
  const models = await client.models.list();
  assert.equal(models.data.length, 1);
  model = models.data[0].id;
});

const complete = (more = {}) =>
  client.completions.create({ model, prompt, temperature: 0, max_tokens: 24, ...more });
const chat = (more = {}) =>
  client.chat.completions.create({ model, messages, temperature: 0, max_completion_tokens: 24, ...more });

async function collect(stream, text_of) {
  const pieces = [];
  for await (const piece of stream) pieces.push(piece);
  const text = pieces.map((piece) => (piece.choices[0] ? (text_of(piece.choices[0]) ?? '') : '')).join('');
  const ends = pieces.flatMap((piece) => piece.choices.map((choice) => choice.finish_reason)).filter(Boolean);
  return { pieces, text, ends };
}
const text_of_completion = (choice) => choice.text;
const text_of_chat = (choice) => choice.delta.content;

function check_usage(usage, most_tokens) {
  assert.ok(usage.prompt_tokens > 0);
  assert.ok(usage.completion_tokens > 0 && usage.completion_tokens <= most_tokens);
  assert.equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens);
}

test('a model is listed and retrieved', async () => {
  const one = await client.models.retrieve(model);
  assert.equal(one.id, model);
  assert.equal(one.object, 'model');
});

test('a completion has text, an end and usage, and is the same each time', async () => {
  const [first, second] = [await complete(), await complete()];
  assert.equal(first.object, 'text_completion');
  assert.ok(first.choices[0].text.length > 0);
  assert.equal(first.choices[0].text, second.choices[0].text);
  assert.ok(['stop', 'length'].includes(first.choices[0].finish_reason));
  check_usage(first.usage, 24);
  assert.notEqual(first.id, second.id);
});

test('a streamed completion is the whole one in pieces', async () => {
  const whole = await complete();
  const { pieces, text, ends } = await collect(
    await complete({ stream: true, stream_options: { include_usage: true } }), text_of_completion);
  assert.equal(text, whole.choices[0].text);
  assert.deepEqual(ends, [whole.choices[0].finish_reason]);
  assert.ok(pieces.length > 3);
  assert.equal(pieces.at(-1).choices.length, 0);
  assert.deepEqual(pieces.at(-1).usage, whole.usage);
});

test('prompts may come as several, and as token ids', async () => {
  const alone = await complete();
  const both = await complete({ prompt: [prompt, 'The king'], n: 1 });
  assert.deepEqual(both.choices.map((choice) => choice.index), [0, 1]);
  assert.equal(both.choices[0].text, alone.choices[0].text);
  const ids = await complete({ prompt: [[1, 2, 3], [4]], max_tokens: 2 });
  assert.equal(ids.choices.length, 2);
  assert.equal(ids.usage.prompt_tokens, 4);
});

test('an echo begins with the prompt', async () => {
  const plain = await complete();
  assert.equal((await complete({ echo: true })).choices[0].text, prompt + plain.choices[0].text);
});

test('a chat answers as the assistant', async () => {
  const answer = await chat();
  assert.equal(answer.object, 'chat.completion');
  assert.equal(answer.choices[0].message.role, 'assistant');
  assert.ok(answer.choices[0].message.content.length > 0);
  check_usage(answer.usage, 24);
});

test('a streamed chat is the whole one in pieces', async () => {
  const whole = await chat();
  const { pieces, text, ends } = await collect(
    await chat({ stream: true, stream_options: { include_usage: true } }), text_of_chat);
  assert.equal(text, whole.choices[0].message.content);
  assert.deepEqual(ends, [whole.choices[0].finish_reason]);
  assert.equal(pieces[0].choices[0].delta.role, 'assistant');
  assert.deepEqual(pieces.at(-1).usage, whole.usage);
});

test("the client's own accumulator understands the stream", async () => {
  const whole = await chat();
  const runner = client.chat.completions.stream(
    { model, messages, temperature: 0, max_completion_tokens: 24 });
  const final = await runner.finalChatCompletion();
  assert.equal(final.choices[0].message.content, whole.choices[0].message.content);
  assert.equal(final.choices[0].finish_reason, whole.choices[0].finish_reason);
});

test('a stop string ends the text before it, whole and streamed', async () => {
  const { text } = (await complete()).choices[0];
  const stop = text.slice(Math.floor(text.length / 2), Math.floor(text.length / 2) + 3);
  const expected = text.slice(0, text.indexOf(stop));
  const stopped = await complete({ stop });
  assert.equal(stopped.choices[0].text, expected);
  assert.equal(stopped.choices[0].finish_reason, 'stop');
  const streamed = await collect(await complete({ stop: ['\u0000never', stop], stream: true }), text_of_completion);
  assert.equal(streamed.text, expected);
});

test('a seed gives the same text, whatever n is', async () => {
  const draw = async (more) =>
    (await complete({ temperature: 1, seed: 42, ...more })).choices.map((choice) => choice.text);
  const [one] = await draw({});
  assert.equal((await draw({}))[0], one);
  const three = await draw({ n: 3 });
  assert.equal(three.length, 3);
  assert.equal(three[0], one);
});

test('n streams its choices beside each other', async () => {
  const whole = await chat({ n: 2, temperature: 1, seed: 7 });
  const texts = ['', ''];
  const ends = [];
  for await (const piece of await chat({ n: 2, temperature: 1, seed: 7, stream: true }))
    for (const choice of piece.choices) {
      texts[choice.index] += choice.delta.content ?? '';
      if (choice.finish_reason) ends.push(choice.index);
    }
  assert.deepEqual(texts, whole.choices.map((choice) => choice.message.content));
  assert.deepEqual(ends.sort(), [0, 1]);
});

test('log-probabilities of a chat', async () => {
  const { logprobs } = (await chat({ logprobs: true, top_logprobs: 3 })).choices[0];
  assert.ok(logprobs.content.length > 0);
  for (const token of logprobs.content) {
    assert.ok(token.logprob <= 0);
    assert.equal(token.top_logprobs.length, 3);
    // Greedy takes the best one.
    assert.deepEqual(token.top_logprobs[0].bytes, token.bytes);
    assert.ok(Math.abs(token.top_logprobs[0].logprob - token.logprob) < 1e-4);
    for (let i = 1; i < 3; i++)
      assert.ok(token.top_logprobs[i].logprob <= token.top_logprobs[i - 1].logprob);
  }
});

test('log-probabilities of a completion', async () => {
  const { logprobs } = (await complete({ logprobs: 2 })).choices[0];
  const { tokens, token_logprobs, top_logprobs, text_offset } = logprobs;
  assert.ok(tokens.length > 0);
  for (const list of [token_logprobs, top_logprobs, text_offset]) assert.equal(list.length, tokens.length);
  assert.equal(text_offset[0], 0);
  for (let i = 0; i < tokens.length; i++) {
    assert.ok(token_logprobs[i] <= 0);
    assert.ok(tokens[i] in top_logprobs[i]);
  }
});

test('sampling parameters are taken', async () => {
  const answer = await chat({
    temperature: 0.8, top_p: 0.9, presence_penalty: 0.5, frequency_penalty: 0.5, logit_bias: { 5: -100 },
    top_k: 40, min_p: 0.05, repetition_penalty: 1.1, user: 'me', metadata: { a: 'b' },
  });
  assert.ok(answer.choices[0].message.content !== null);
});

test('an unknown model is NotFoundError', async () => {
  await assert.rejects(complete({ model: 'no-such-model' }), (error) => {
    assert.ok(error instanceof OpenAI.NotFoundError);
    assert.equal(error.code, 'model_not_found');
    assert.equal(error.param, 'model');
    return true;
  });
  await assert.rejects(client.models.retrieve('no-such-model'), OpenAI.NotFoundError);
  await assert.rejects(client.embeddings.create({ model, input: 'x' }), OpenAI.NotFoundError);
});

test('a wrong parameter is BadRequestError and named', async () => {
  for (const [more, param] of [
    [{ temperature: 'hot' }, 'temperature'], [{ n: 0 }, 'n'], [{ stop: 5 }, 'stop'],
    [{ messages: [] }, 'messages'], [{ response_format: { type: 'json_object' } }, 'response_format'],
    [{ messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'x' } }] }] },
      'messages[0].content'],
  ])
    await assert.rejects(chat(more), (error) => {
      assert.ok(error instanceof OpenAI.BadRequestError, `${param}: ${error}`);
      assert.equal(error.type, 'invalid_request_error');
      assert.equal(error.param, param);
      return true;
    });
});

if (process.env.CARAVAN_API_KEY)
  test('a wrong key is AuthenticationError', async () => {
    const stranger = new OpenAI({ baseURL, apiKey: 'wrong', maxRetries: 0 });
    await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
  });

test('an aborted stream stops generating', async () => {
  const running = async () => {
    const answer = await fetch(`${baseURL}/caravan/status`, { headers: { Authorization: `Bearer ${apiKey}` } });
    return (await answer.json()).requests_running;
  };
  const stream = await complete({ temperature: 1, max_tokens: 400, ignore_eos: true, stream: true });
  let pieces = 0;
  for await (const piece of stream) {
    assert.ok(piece.choices);
    if (++pieces === 1) assert.ok((await running()) >= 1);
    if (pieces === 3) stream.controller.abort();
  }
  assert.ok(pieces < 400);
  const deadline = Date.now() + 10_000;
  while ((await running()) > 0 && Date.now() < deadline) await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(await running(), 0);
});

test('many requests at once all get their own answer', async () => {
  const alone = (await complete()).choices[0].text;
  const all = await Promise.all(Array.from({ length: 12 }, () => complete()));
  for (const one of all) assert.equal(one.choices[0].text, alone);
});
