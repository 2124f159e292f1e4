// Loaded into NNI's manager with NODE_OPTIONS=--require. NNI 3.0 listens on every interface without authentication, and has no option to
// change that. With this file, a server that names no host listens on the loopback interface instead. No installed file is patched.
'use strict';
const net = require('net');
const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (...args) {
    const first = args[0];
    if (first !== null && typeof first === 'object') {
        if (first.port !== undefined && !first.host && !first.path) {
            args[0] = { ...first, host: '127.0.0.1' };
        }
    } else if (/^\d+$/.test(String(first)) && typeof args[1] !== 'string') {
        args.splice(1, args[1] === undefined ? 1 : 0, '127.0.0.1');
    }
    return listen.apply(this, args);
};
