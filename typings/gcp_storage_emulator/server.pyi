from http.server import HTTPServer

class APIThread:
    _httpd: HTTPServer

class APIServer:
    _api: APIThread

    def start(self) -> None: ...
    def stop(self) -> None: ...

def create_server(host: str, port: int, in_memory: bool, default_bucket: str | None = ...) -> APIServer: ...
