// Registered by nobody: it is here because the front web server must serve this path without a cache.
self.addEventListener('install', () => self.skipWaiting());
