'use strict'

// Relays for every client on the loopback network and sends all mail to the benchmark's sink.

exports.register = function () {
    this.sink = {
        priority: 0,
        exchange: '127.0.0.1',
        port: Number(this.config.get('bench_relay.ini').main.port),
    }
    this.register_hook('connect', 'allow')
    this.register_hook('get_mx', 'to_sink')
}

exports.allow = function (next, connection) {
    connection.relaying = true
    next()
}

exports.to_sink = function (next) {
    next(OK, { ...this.sink })
}
