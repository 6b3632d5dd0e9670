import org.apache.activemq.artemis.core.server.embedded.EmbeddedActiveMQ;

/** Artemis: the argument is the URL of its broker.xml. */
public class Start {
    public static void main(String[] arguments) throws Exception {
        EmbeddedActiveMQ broker = new EmbeddedActiveMQ();
        broker.setConfigResourcePath(arguments[0]);
        broker.start();
        Thread.currentThread().join();
    }
}
