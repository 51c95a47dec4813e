// The same as grpc_server.py and grpc_client.py, by @grpc/grpc-js:
//   grpc_js.js serve FILE           a server; prints its port, and notes each call in FILE
//   grpc_js.js call HOST:PORT CALL  a client; prints what came of a call, as JSON
const { appendFileSync } = require("node:fs");
const grpc = require("@grpc/grpc-js");

const { status } = grpc;
const [, , role, where, name, ...words] = process.argv;
const same = (bytes) => bytes;
const bytes = (text) => Buffer.from(text, "latin1");
const limits = { "grpc.max_receive_message_length": 16 << 20 };
const KINDS = { unary: [false, false], upload: [true, false], download: [false, true], both: [true, true] };

// A method of a service, which takes and gives octets.
function method(name, kind) {
  const [requestStream, responseStream] = KINDS[kind];
  const codec = { requestSerialize: same, requestDeserialize: same, responseSerialize: same, responseDeserialize: same };
  return { path: `/test.Peer/${name}`, requestStream, responseStream, ...codec };
}

// Server.

const note = (what) => appendFileSync(where, JSON.stringify(what) + "\n");
const tries = new Map();

// Whatever the caller does, this is noted once it has left.
function noteEnd(name, call) {
  const deadline = call.getDeadline();
  note({ call: name, left: deadline === Infinity ? null : (deadline - Date.now()) / 1000 });
  call.on("cancelled", () => note({ call: name, ended: true }));
}

const CALLS = {
  Echo: ["unary", (call, answer) => {
    note({ call: "echo", length: call.request.length, fields: call.metadata.getMap() });
    const metadata = new grpc.Metadata();
    metadata.set("x-initial", "yes");
    call.sendMetadata(metadata);
    const trailer = new grpc.Metadata();
    trailer.set("x-trailing", "yes");
    trailer.set("x-trailing-bin", bytes("\0\x01"));
    answer(null, call.request, trailer);
  }],
  Fail: ["unary", (call, answer) => answer({ code: status[call.request.toString()], details: "as asked: 100 %" })],
  Flaky: ["unary", (call, answer) => {
    const [name, times, ...pushback] = call.request.toString().split(":");
    const count = (tries.get(name) ?? 0) + 1;
    tries.set(name, count);
    note({ call: "flaky", name });
    const metadata = new grpc.Metadata();
    for (const wait of pushback) metadata.set("grpc-retry-pushback-ms", wait);
    if (count <= Number(times)) answer({ code: status.UNAVAILABLE, details: "try again", metadata });
    else answer(null, bytes(String(count)));
  }],
  Silent: ["unary", (call) => noteEnd("silent", call)],
  Count: ["download", (call) => {
    for (let number = 0; number < Number(call.request); number += 1) call.write(bytes(String(number)));
    call.end();
  }],
  LateFailure: ["download", (call) => {
    call.write(bytes("first"));
    call.emit("error", { code: status.DATA_LOSS, details: "after a message" });
  }],
  Endless: ["download", (call) => {
    noteEnd("endless", call);
    const timer = setInterval(() => call.write(bytes("more")), 1);
    call.on("cancelled", () => clearInterval(timer));
  }],
  Total: ["upload", async (call, answer) => {
    let total = 0;
    for await (const message of call) total += message.length;
    answer(null, bytes(String(total)));
  }],
  Both: ["both", (call) => {
    call.on("data", (message) => call.write(bytes(message.toString().toUpperCase())));
    call.on("end", () => call.end());
  }],
};

function serve() {
  const server = new grpc.Server(limits);
  for (const [name, [kind, implementation]] of Object.entries(CALLS)) {
    server.addService({ [name]: method(name, kind) }, { [name]: implementation });
  }
  server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, port) => {
    if (error) throw error;
    console.log(port);
  });
}

// Client.

function stub() {
  const methods = Object.entries(CALLS).map(([name, [kind]]) => [name, method(name, kind)]);
  const Client = grpc.makeGenericClientConstructor(Object.fromEntries(methods), "test.Peer");
  // Whoever is asked again is asked by the proxy.
  const options = { ...limits, "grpc.enable_retries": 0, "grpc.default_authority": "web.test" };
  return new Client(where, grpc.credentials.createInsecure(), options);
}

// Octets as hexadecimal digits.
const pairs = (metadata) => Object.entries(metadata.getMap()).map(([key, value]) => [key, value.toString("hex")]);

// What a call came to, once it has.
async function ended(call) {
  let initial = [];
  call.on("metadata", (metadata) => { initial = pairs(metadata); });
  const end = await new Promise((resolve) => call.on("status", resolve));
  return { code: status[end.code], details: end.details, initial, trailing: pairs(end.metadata) };
}

// A call with one answer; `send` gives it more messages.
async function one(name, send, ...request) {
  let answer = bytes("");
  const call = client[name](...request, (error, value) => { answer = value ?? answer; });
  const end = ended(call);
  send(call);
  return { ...(await end), length: answer.length, text: answer.toString("latin1", 0, 100) };
}

const unary = (name, ...request) => one(name, () => {}, ...request);

// Each message of the answer, and what is done about it.
async function stream(call, taken = () => {}) {
  const got = [];
  call.on("error", () => {});
  call.on("data", (message) => { got.push(message.toString()); taken(call, got.length); });
  return { ...(await ended(call)), got };
}

function upload(call, count) {
  for (let number = 0; number < count; number += 1) call.write(bytes("x".repeat(1000)));
  call.end();
}

// Each message waits for the answer to the one before.
function inTurns() {
  const call = client.Both();
  const say = (number) => (number < 3 ? call.write(bytes(["one", "two", "three"][number])) : call.end());
  say(0);
  return stream(call, (_, count) => say(count));
}

async function many(count) {
  const numbers = [...Array(count).keys()];
  const answers = await Promise.all(numbers.map((number) => unary("Echo", bytes("x".repeat(number)))));
  return { right: answers.every((answer, number) => answer.code === "OK" && answer.length === number) };
}

const ASKED = {
  echo: (text) => unary("Echo", bytes(text)),
  big: (length) => unary("Echo", Buffer.alloc(Number(length), "x")),
  fail: (code) => unary("Fail", bytes(code)),
  flaky: (...words) => unary("Flaky", bytes(words.join(":"))),
  deadline: (seconds) => unary("Silent", bytes(""), { deadline: Date.now() + 1000 * Number(seconds) }),
  count: (number) => stream(client.Count(bytes(number))),
  late: () => stream(client.LateFailure(bytes(""))),
  cancel: () => stream(client.Endless(bytes("")), (call) => call.cancel()),
  total: (count) => one("Total", (call) => upload(call, Number(count))),
  both: inTurns,
  many: (count) => many(Number(count)),
};

let client;
if (role === "serve") {
  serve();
} else {
  client = stub();
  ASKED[name](...words).then((said) => {
    console.log(JSON.stringify(said));
    client.close();
  });
}
