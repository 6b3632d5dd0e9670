// What the tutorial's JavaScript program does, call by call; the producer's host comes from /datacenter/local and its
// one-time password from /apid/otp. Parameters come from the environment: GDN_URL, GDN_KEY, GDN_TENANT, GDN_DEFINITION
// (a file), GDN_PAUSE (seconds).
const fs = require("fs");
const WebSocket = require("ws");

const { GDN_URL, GDN_KEY, GDN_TENANT, GDN_DEFINITION } = process.env;
const APPS = "/_fabric/_system/_api/streamapps";
const NAME = "stream_worker_tutorial";
const READINGS = [
  { deviceID: "AD11", roomNo: 200, temperature: 18 },
  { deviceID: "AD11", roomNo: 201, temperature: 47 },
];

const pause = () => new Promise((resolve) => setTimeout(resolve, 1000 * Number(process.env.GDN_PAUSE ?? 1)));

async function call(method, path, body) {
  const response = await fetch(GDN_URL + path, {
    method,
    headers: { Accept: "application/json", "Content-Type": "application/json", authorization: `apikey ${GDN_KEY}` },
    body: body && JSON.stringify(body),
  });
  if (!response.ok) throw response;
  return response.json();
}

async function main() {
  try {
    console.log("created", await call("POST", APPS, { definition: fs.readFileSync(GDN_DEFINITION, "utf8"), regions: [] }));
  } catch (error) {
    if (error.status !== 409) throw error;
  }
  await call("PATCH", `${APPS}/${NAME}/active?active=true`);
  await pause();

  const region = await call("GET", "/datacenter/local");
  const { otp } = await call("POST", "/apid/otp");
  const stream = "c8locals.tutorialAppInputStream";
  const url = `ws://api-${region.tags.url}/_ws/ws/v2/producer/persistent/${GDN_TENANT}/c8local._system/${stream}?otp=${otp}`;
  const producer = new WebSocket(url);
  producer.onmessage = () => console.log("published");
  await new Promise((resolve, reject) => {
    producer.onopen = resolve;
    producer.onerror = reject;
  });
  for (const reading of READINGS) {
    producer.send(JSON.stringify({ payload: Buffer.from(JSON.stringify(reading)).toString("base64") }));
    await pause();
  }
  producer.close();

  const query = { id: "tutorialStreamAppQuery", query: "FOR doc IN tutorialAppOutputTable RETURN doc", bindVars: {} };
  console.log("rows", (await call("POST", "/_fabric/_system/_api/cursor", query)).result);
  console.log("deleted", await call("DELETE", `${APPS}/${NAME}`));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
