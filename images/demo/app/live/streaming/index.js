'use strict';

// The streaming server: looks a token up in PostgreSQL, then hands on what Rails publishes in Redis, to WebSockets and
// to plain event streams. Without a valid token everything is 401.

const cluster = require('cluster');
const dns = require('dns');
const fs = require('fs');
const http = require('http');
const os = require('os');
const path = require('path');
const pg = require('pg');
const redis = require('@redis/client');
const { WebSocketServer } = require('ws');

// REDIS_HOST=localhost means 127.0.0.1 where a name has both, as it did for the Node of that time.
dns.setDefaultResultOrder('ipv4first');

const production = process.env.NODE_ENV === 'production';

// dotenv 4.0.0's way of reading: quotes off, `\n` meant only within double ones, and what is set already stays.
const loadEnvironment = (file) => {
  if (!fs.existsSync(file)) return;

  for (const line of fs.readFileSync(file, 'utf8').split('\n')) {
    const [, key, raw] = line.match(/^\s*([\w.-]+)\s*=\s*(.*)?\s*$/) || [];
    if (!key || key in process.env) continue;

    const value = raw || '';
    const expanded = /^".*"$/.test(value) ? value.replace(/\\n/g, '\n') : value;
    process.env[key] = expanded.replace(/(^['"]|['"]$)/g, '').trim();
  }
};

loadEnvironment(path.join(process.cwd(), production ? '.env.production' : '.env'));

const env = process.env;
const log = (level, message) => console.log(`${level} ${message}`);

// A DB_HOST that is a folder is a Unix socket for this driver as it is for Rails.
const databaseConfig = () => env.DATABASE_URL ? { connectionString: env.DATABASE_URL, max: 10 } : {
  user: env.DB_USER || 'mastodon',
  password: env.DB_PASS || undefined,
  database: env.DB_NAME || 'mastodon_production',
  host: env.DB_HOST || 'localhost',
  port: +env.DB_PORT || 5432,
  max: 10,
};

const redisConfig = () => env.REDIS_URL ? { url: env.REDIS_URL } : {
  socket: { host: env.REDIS_HOST || '127.0.0.1', port: +env.REDIS_PORT || 6379 },
  password: env.REDIS_PASSWORD || undefined,
  database: +env.REDIS_DB || 0,
};

class RequestError extends Error {
  constructor(statusCode, message) {
    super(message);
    this.statusCode = statusCode;
  }
}

const TOKEN_OWNER = `
  SELECT users.account_id
  FROM oauth_access_tokens INNER JOIN users ON oauth_access_tokens.resource_owner_id = users.id
  WHERE oauth_access_tokens.token = $1 AND oauth_access_tokens.revoked_at IS NULL LIMIT 1`;

const authenticate = async (database, request, url) => {
  const [, bearer] = (request.headers.authorization || '').match(/^Bearer (\S+)$/i) || [];
  const token = bearer || url.searchParams.get('access_token');
  if (!token) throw new RequestError(401, 'Missing access token');

  const { rows } = await database.query(TOKEN_OWNER, [token]);
  if (rows.length === 0) throw new RequestError(401, 'Invalid access token');

  return rows[0].account_id;
};

const channelOf = (stream, accountId) => {
  const channel = { user: `timeline:${accountId}`, public: 'timeline:public', 'public:local': 'timeline:public:local' }[stream];
  if (!channel) throw new RequestError(404, 'Unknown stream type');
  return channel;
};

// Errors of the request are told to the client, all others only to the log.
const describe = (error) => {
  if (!error.statusCode) log('ERR!', error.stack || error);
  const body = JSON.stringify({ error: error.statusCode ? `${error}` : 'An unexpected error occurred' });
  return { status: error.statusCode || 500, body };
};

const startWorker = () => {
  const database = new pg.Pool(databaseConfig());
  database.on('error', (error) => log('ERR!', `PostgreSQL: ${error.message}`));

  const subscriber = redis.createClient(redisConfig());
  subscriber.on('error', (error) => log('ERR!', `Redis: ${error.message}`));
  subscriber.connect().catch((error) => log('ERR!', `Redis: ${error.message}`));

  // One subscription per channel, shared by all clients of it.
  const listeners = new Map();

  const subscribe = (channel, send) => {
    if (!listeners.has(channel)) {
      listeners.set(channel, new Set());
      subscriber.subscribe(channel, (text) => {
        const { event, payload } = JSON.parse(text);
        const encoded = typeof payload === 'object' ? JSON.stringify(payload) : payload;
        for (const deliver of listeners.get(channel) || []) deliver(event, encoded);
      }).catch((error) => log('ERR!', `Redis: ${error.message}`));
    }
    listeners.get(channel).add(send);

    return () => {
      const others = listeners.get(channel);
      others.delete(send);
      if (others.size > 0) return;
      listeners.delete(channel);
      subscriber.unsubscribe(channel).catch(() => {});
    };
  };

  // /api/v1/streaming/public and its like, as server-sent events.
  const answer = async (request, response) => {
    const url = new URL(request.url, 'http://localhost');
    const accountId = await authenticate(database, request, url);
    const [, name] = url.pathname.match(/^\/api\/v1\/streaming\/(.+)$/) || [];
    const channel = channelOf((name || '').replace('/', ':'), accountId);

    response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Transfer-Encoding': 'chunked' });
    const leave = subscribe(channel, (event, payload) => response.write(`event: ${event}\ndata: ${payload}\n\n`));
    const heartbeat = setInterval(() => response.write(':thump\n'), 15000);
    request.on('close', () => {
      clearInterval(heartbeat);
      leave();
    });
  };

  const server = http.createServer((request, response) => {
    answer(request, response).catch((error) => {
      const { status, body } = describe(error);
      response.writeHead(status, { 'Content-Type': 'application/json' });
      response.end(body);
    });
  });

  const sockets = new WebSocketServer({ noServer: true });

  const upgrade = async (request, socket, head) => {
    const url = new URL(request.url, 'http://localhost');
    const accountId = await authenticate(database, request, url);
    const channel = channelOf(url.searchParams.get('stream'), accountId);

    sockets.handleUpgrade(request, socket, head, (client) => {
      const leave = subscribe(channel, (event, payload) => client.send(JSON.stringify({ event, payload })));
      let alive = true;
      const heartbeat = setInterval(() => {
        if (!alive) return client.terminate();
        alive = false;
        client.ping();
      }, 30000);

      client.on('pong', () => { alive = true; });
      client.on('error', (error) => log('WARN', `WebSocket: ${error.message}`));
      client.on('close', () => {
        clearInterval(heartbeat);
        leave();
      });
    });
  };

  server.on('upgrade', (request, socket, head) => {
    socket.on('error', () => socket.destroy());
    upgrade(request, socket, head).catch((error) => {
      const { status, body } = describe(error);
      socket.end(`HTTP/1.1 ${status} ${http.STATUS_CODES[status]}\r\nConnection: close\r\n`
        + `Content-Type: application/json\r\nContent-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`);
    });
  });

  server.listen(+env.PORT || 4000, '::', () => log('info', `Worker ${process.pid} now listening on [::]:${server.address().port}`));

  const stop = () => process.exit(0);
  process.on('SIGINT', stop);
  process.on('SIGTERM', stop);
};

// One worker needs no second process to watch it: systemd does.
const workers = +env.STREAMING_CLUSTER_NUM || Math.max(os.cpus().length - 1, 1);

if (workers === 1 || cluster.isWorker) {
  startWorker();
} else {
  for (let i = 0; i < workers; i++) cluster.fork();
  cluster.on('exit', (worker) => {
    log('WARN', `Worker ${worker.process.pid} is gone`);
    cluster.fork();
  });
  process.on('SIGTERM', () => process.exit(0));
}
