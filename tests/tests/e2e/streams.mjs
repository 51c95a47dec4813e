// Streams at both ends of a proxy, by Node's own HTTP/1.1 and HTTP/2:
//   streams.mjs serve http1|http2 PORT          a server of streams
//   streams.mjs talk http1|http2 PORT WHAT      a client that does WHAT, and checks what comes of it
import assert from "node:assert";
import http from "node:http";
import http2 from "node:http2";
import { once } from "node:events";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";

const MIB = 1 << 20;
// Of a connection, for all its streams.
const WINDOW = 16 * MIB;
const [, , role, protocol, port, what] = process.argv;
const address = { host: "127.0.0.1", port: Number(port) };

// What the server knows of its streams.
const waiting = new Set();
let flooded = 0;

const routes = {
  // Sends back what comes, while it comes.
  "/echo": (request, response) => {
    response.flushHeaders();
    return pipeline(request, response);
  },
  "/count": async (request, response) => {
    let count = 0;
    for await (const part of request) count += part.length;
    response.end(String(count));
  },
  // An event for each `/publish`, without an end.
  "/events": (request, response) => {
    response.writeHead(200, { "content-type": "text/event-stream" });
    response.flushHeaders();
    const tell = (message) => response.write(`data: ${message}\n\n`);
    waiting.add(tell);
    response.on("close", () => waiting.delete(tell));
  },
  // One answer, at the next `/publish`.
  "/poll": (request, response) => {
    const tell = (message) => {
      waiting.delete(tell);
      response.end(message);
    };
    waiting.add(tell);
  },
  "/publish": async (request, response) => {
    const message = await text(request);
    const told = [...waiting];
    told.forEach((tell) => tell(message));
    response.end(String(told.length));
  },
  // More than anybody takes, as fast as it is taken.
  "/flood": (request, response) => {
    const block = Buffer.alloc(64 * 1024, "x");
    const more = () => {
      while (response.write(block)) flooded += block.length;
      flooded += block.length;
    };
    response.on("drain", more);
    more();
  },
  "/flooded": (request, response) => response.end(String(flooded)),
  // Takes nothing of what comes.
  "/hold": (request) => request.pause(),
};

async function text(stream) {
  let all = "";
  for await (const part of stream) all += part;
  return all;
}

function serve() {
  const answer = (request, response) => {
    response.on("error", () => {});
    request.on("error", () => {});
    Promise.resolve(routes[request.url](request, response)).catch(() => {});
  };
  const server = protocol === "http2"
    ? http2.createServer({ settings: { initialWindowSize: MIB } }, answer)
    : http.createServer(answer);
  // What one stream does not take must not use up the window of all.
  server.on("session", (session) => session.setLocalWindowSize(WINDOW));
  server.listen(address, () => console.log("ready"));
}

// A client, whose streams share one connection where the protocol has that.
class Caller {
  constructor() {
    if (protocol === "http2") {
      this.session = http2.connect(`http://127.0.0.1:${port}`);
      this.session.on("connect", () => this.session.setLocalWindowSize(WINDOW));
    } else {
      this.agent = new http.Agent();
    }
  }

  open(method, path) {
    const fields = { "x-upstream-host": "web" };
    if (this.session) {
      const stream = this.session.request({ ":method": method, ":path": path, ...fields }, { endStream: method === "GET" });
      const response = once(stream, "response").then(([head]) => ({ status: head[":status"], body: stream }));
      return { request: stream, response, abort: () => stream.close(http2.constants.NGHTTP2_CANCEL) };
    }
    const request = http.request({ ...address, method, path, headers: fields, agent: this.agent });
    if (method === "GET") request.end();
    else request.flushHeaders();
    const response = once(request, "response").then(([head]) => ({ status: head.statusCode, body: head }));
    return { request, response, abort: () => request.destroy() };
  }

  async ask(method, path, body) {
    const { request, response } = this.open(method, path);
    if (body !== undefined) request.end(body);
    const { status, body: answer } = await response;
    assert.equal(status, 200);
    return text(answer);
  }

  close() {
    this.session?.destroy();
    this.agent?.destroy();
  }
}

// Reads exactly what is expected, however it is cut.
async function expect(parts, expected) {
  let heard = "";
  while (heard.length < expected.length) {
    const { value, done } = await parts.next();
    assert(!done, `it ended after ${heard}`);
    heard += value;
  }
  assert.equal(heard, expected);
}

async function until(wanted, happened) {
  while (!wanted(await happened())) await new Promise((resolve) => setTimeout(resolve, 20));
}

const talks = {
  // Each message is answered before the next one is sent.
  async duplex(caller) {
    const { request, response } = caller.open("POST", "/echo");
    const { status, body } = await response;
    assert.equal(status, 200);
    const parts = body[Symbol.asyncIterator]();
    for (let at = 0; at < 200; at++) {
      const message = `${at} `.repeat(1 + (at % 50) * 40);
      request.write(message);
      await expect(parts, message);
    }
    request.end();
    assert((await parts.next()).done);
  },

  // An event is here before the next one happens.
  async events(caller) {
    const { response, abort } = caller.open("GET", "/events");
    const { status, body } = await response;
    assert.equal(status, 200);
    const parts = body[Symbol.asyncIterator]();
    for (let at = 0; at < 50; at++) {
      assert.equal(await caller.ask("POST", "/publish", `event ${at}`), "1");
      await expect(parts, `data: event ${at}\n\n`);
    }
    abort();
    body.on("error", () => {});
    await until((told) => told === "0", () => caller.ask("POST", "/publish", "nobody"));
  },

  // Many wait for one answer, while others come and go.
  async poll(caller) {
    for (let round = 0; round < 5; round++) {
      const polls = Array.from({ length: 20 }, () => caller.ask("GET", "/poll"));
      let told = 0;
      while (told < polls.length) told += Number(await caller.ask("POST", "/publish", `round ${round}`));
      assert.deepEqual(await Promise.all(polls), polls.map(() => `round ${round}`));
    }
  },

  async upload(caller) {
    const total = 1024 * MIB;
    const block = Buffer.alloc(256 * 1024, "x");
    const blocks = function* () {
      for (let sent = 0; sent < total; sent += block.length) yield block;
    };
    const { request, response } = caller.open("POST", "/count");
    await pipeline(Readable.from(blocks()), request);
    const { status, body } = await response;
    assert.equal(status, 200);
    assert.equal(await text(body), String(total));
  },

  // One stream is not read, and one is not taken by the server: neither grows, and all
  // others go on.
  async slow(caller) {
    const flood = caller.open("GET", "/flood");
    const unread = await flood.response;
    assert.equal(unread.status, 200);
    const held = caller.open("POST", "/hold");
    held.response.catch(() => {});
    let sent = 0;
    const more = () => {
      for (const block = Buffer.alloc(64 * 1024, "y"); sent < 64 * MIB; ) {
        sent += block.length;
        if (!held.request.write(block)) return;
      }
    };
    held.request.on("drain", more);
    more();
    let before = "";
    await until((now) => {
      const rests = now === before && Number(now) > 0;
      before = now;
      return rests;
    }, () => caller.ask("GET", "/flooded"));
    for (let at = 0; at < 200; at++) {
      assert.equal(await caller.ask("POST", "/echo", `message ${at}`), `message ${at}`);
    }
    const large = "z".repeat(4 * MIB);
    assert.equal(await caller.ask("POST", "/echo", large), large);
    assert(sent < 32 * MIB, `${sent} bytes went nowhere`);
    assert(Number(await caller.ask("GET", "/flooded")) < 32 * MIB, "a flood went nowhere");
    [unread.body, flood.request, held.request].forEach((stream) => stream.on("error", () => {}));
    flood.abort();
    held.abort();
  },
};

if (role === "serve") {
  serve();
} else {
  const caller = new Caller();
  await talks[what](caller);
  caller.close();
}
