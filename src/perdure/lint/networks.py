"""Networks: the names of libraries that talk to other machines or to databases, apart from what they have that is plain.

A list of what acts is shorter than one of what does not: exceptions, time limits, URLs and statements of the same
libraries may be made in a workflow.
"""

from __future__ import annotations

from typing import Final

_REQUESTS: Final = "get post put patch delete head options request"

NETWORKS: Final = {
    "aiohttp": "ClientSession TCPConnector request",
    "aiokafka": "AIOKafkaConsumer AIOKafkaProducer",
    "aiosmtplib": "SMTP send",
    "aiosqlite": "Connection connect",
    "asyncpg": "Connection Pool connect create_pool",
    "boto3": "Session client resource",
    "confluent_kafka": "Consumer Producer",
    "ftplib": "FTP FTP_TLS",
    "grpc": "insecure_channel secure_channel",
    "grpc.aio": "insecure_channel secure_channel",
    "http.client": "HTTPConnection HTTPSConnection",
    "httpx": f"{_REQUESTS} stream AsyncClient AsyncHTTPTransport Client HTTPTransport",
    "imaplib": "IMAP4 IMAP4_SSL",
    "kafka": "KafkaConsumer KafkaProducer",
    "motor.motor_asyncio": "AsyncIOMotorClient",
    "nats": "connect",
    "paramiko": "SSHClient Transport",
    "pika": "BlockingConnection",
    "poplib": "POP3 POP3_SSL",
    "psycopg": "AsyncConnection AsyncCursor Connection Cursor connect",
    "psycopg2": "connect",
    "psycopg_pool": "AsyncConnectionPool AsyncNullConnectionPool ConnectionPool NullConnectionPool",
    "pymongo": "AsyncMongoClient MongoClient",
    "pymysql": "connect",
    "redis": "Redis StrictRedis from_url",
    "redis.asyncio": "Redis StrictRedis from_url",
    "requests": f"{_REQUESTS} Session session",
    "smtplib": "SMTP SMTP_SSL",
    "sqlalchemy": "Connection Engine create_engine",
    "sqlalchemy.ext.asyncio": "AsyncConnection AsyncEngine AsyncSession create_async_engine",
    "sqlalchemy.orm": "Session",
    "sqlite3": "Connection Cursor connect",
    "urllib3": "HTTPConnectionPool HTTPSConnectionPool PoolManager ProxyManager request",
    "websockets": "connect serve",
}
"""Package to what in it acts, apart by spaces; what hangs on these names acts too."""
